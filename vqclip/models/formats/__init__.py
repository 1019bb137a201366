"""Safe readers of checkpoint files: no code in them is ever run."""
