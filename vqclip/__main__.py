"""`vqclip`, and `python -m vqclip`. Imports little, so that Ctrl-C is answered at once."""

import gc
import os
import sys
from typing import Any

from .errors import is_out_of_memory
from .runs import exits

SELDOM = 5000  # objects between two garbage collections; Python's default of 700 costs half a second while torch loads
TOO_LITTLE = b"error: there is too little memory to begin\n  let this process have more (ulimit -v)\n"


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
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # NumPy multiplies nothing here; a thread takes 30 MB
        from .cli import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
    except (MemoryError, ImportError) as error:  # so little that it can be said in no other way
        if not is_out_of_memory(error):
            raise
        os.write(2, TOO_LITTLE)
        sys.exit(7)
    finally:
        exits.ignore()
        gc.freeze()  # the process ends: collecting garbage would take a second


if __name__ == "__main__":
    main()
