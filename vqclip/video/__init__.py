"""Frames that exist become a video."""
