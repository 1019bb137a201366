"""`python -m vqclip` is `vqclip`."""

from .cli import main

main()
