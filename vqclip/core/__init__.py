"""VQGAN+CLIP as in the paper (Crowson et al. 2022): tensors only, no files, no bars, no model libraries."""
