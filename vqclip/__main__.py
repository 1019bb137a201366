"""`vqclip`, and `python -m vqclip`. Imports little, so that Ctrl-C is answered at once."""

import gc
import os
import sys
from typing import Any

from .runs import exits

SELDOM = 5000  # objects between two garbage collections; Python's default of 700 costs half a second while torch loads


def make_table() -> dict[str, Any]:
    """Return the table that completion answers from."""
    from .cli.completion_table import make_table as make

    return make()


def main() -> None:
    """Run the command line; a signal while it is still being imported ends it as one later does."""
    try:
        exits.handle(exits.leave)
        if "_VQCLIP_COMPLETE" in os.environ:
            from .config.completion import answers

            if answers(os.environ, make_table):
                return
        gc.set_threshold(SELDOM, 10, 10)
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        exits.ignore()
        gc.freeze()  # the process ends: collecting garbage would take a second


if __name__ == "__main__":
    main()
