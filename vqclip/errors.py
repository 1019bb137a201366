"""Every error a user can cause, and the exit code each one ends the program with."""

OUT_OF_MEMORY = (  # as torch, Pillow, ffmpeg and the loader say it, most where a shell allows little (ulimit -v)
    "not enough memory", "can't allocate memory", "out of memory", "Cannot allocate memory", "failed to map segment",
    "could not create a primitive", "can't start new thread", "codec configuration error", "bad_alloc",
    "unable to mmap", "cannot allocate", "Error allocating", "memory allocation",
)  # fmt: skip


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, on whatever device."""
    return isinstance(error, MemoryError) or speaks_of_memory(str(error))


def speaks_of_memory(text: str) -> bool:
    """Say whether a message, of whatever library or program, says that memory ran out."""
    return any(words in text for words in OUT_OF_MEMORY)


class VqclipError(Exception):
    """One line that says what was wrong and where, and one that says what to do."""

    exit_code = 1

    def __init__(self, what: str, hint: str = "") -> None:
        what, hint = (" ".join(text.splitlines()) for text in (what, hint))  # a name in it may have any letters
        super().__init__(what)
        self.what, self.hint = what, hint


class UsageError(VqclipError):
    """An option or a prompt is wrong. field: the setting, where it is the value of one."""

    exit_code = 2

    def __init__(self, what: str, hint: str = "", field: str = "") -> None:
        super().__init__(what, hint)
        self.field = field


class InputError(VqclipError):
    """A file that was to be read is missing, unreadable, or not what it should be."""

    exit_code = 4


class ModelError(VqclipError):
    """A model is missing, or its files do not fit together."""

    exit_code = 5


class IntegrityError(VqclipError):
    """A file is damaged: its hash or its contents are wrong."""

    exit_code = 6


class OutOfMemory(VqclipError):
    """The device has too little memory for these settings."""

    exit_code = 7


class OutputError(VqclipError):
    """Something could not be written."""

    exit_code = 8


class Diverged(VqclipError):
    """The optimisation left the finite numbers."""

    exit_code = 9


class OutputExists(VqclipError):
    """The output is there already and must not be overwritten."""

    exit_code = 10


class RunLocked(VqclipError):
    """Another process writes to the run directory."""

    exit_code = 11
