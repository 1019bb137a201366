"""The schema of a picture's settings: pure values, reads no file, loads no torch."""
