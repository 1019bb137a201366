"""Frames that do not exist yet: a camera through prompts (story), a clip drawn anew (restyle)."""
