"""Many images: files of prompts, the manifest that remembers each row, workers here or on a Ray cluster."""
