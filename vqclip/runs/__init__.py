"""One image, from settings to files: the session, the run directory, resume, candidates."""
