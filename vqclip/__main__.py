"""`vqclip`, and `python -m vqclip`. Imports no more than it must before Ctrl-C is answered."""

import gc
import sys

from . import exits

SELDOM = 5000  # objects between two looks for garbage; Python's own 700 cost half a second as torch's libraries load


def main() -> None:
    """Run the command line; a signal while it is still being imported ends it as one later does."""
    try:
        exits.handle(exits.leave)
        gc.set_threshold(SELDOM, 10, 10)
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        exits.ignore()
        gc.freeze()  # what is left goes with the process: looking through it for garbage takes a second


if __name__ == "__main__":
    main()
