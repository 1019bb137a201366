"""`vqclip`, and `python -m vqclip`. Imports no more than it must before Ctrl-C is answered."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while it is still being imported ends it as one later does."""
    try:
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
