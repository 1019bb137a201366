"""The file system and image files: atomic writes, paths, reading images, writers with metadata."""
