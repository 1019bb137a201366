"""Frozen networks made lean: the same results for less memory and time."""
