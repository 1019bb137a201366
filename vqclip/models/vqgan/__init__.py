"""VQGANs in taming-transformers' architecture, whatever layout their checkpoint has."""
