"""Frames that do not exist yet: a camera that moves through prompts (story), a clip drawn anew (restyle)."""
