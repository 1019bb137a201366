"""One run from its start, or a state, to its end: the loop, what is written, and what is done where it goes wrong."""

from collections.abc import Callable, Iterator
from typing import Any

from ..core.loop import State, Step
from ..errors import Diverged, OutOfMemory
from .memory import smaller_chunk, watched
from .recorder import Recording

OnStep = Callable[[Step], bool | None]


class Halt(KeyboardInterrupt):
    """Ends a run in good order before its first step, while its candidates are drawn."""


def drive(
    recording: Recording, state: State | None, begun: Callable[[], None], on_step: OnStep | None, *, fit: bool
) -> None:
    """Run the loop from a state, or the start, and record it; whatever ends it, the picture so far is kept.

    begun is called before the first step; on_step gets every step, and may return True to end the run there.
    """
    status = "done"
    try:
        with watched(recording.session.settings, fit=fit):
            recording.start(state)
        begun()
        for step in _steps(recording, state, fit):
            recording.step(step)
            if on_step and on_step(step) and step.step < recording.session.settings.steps:
                status = "stopped"
                break
    except BaseException as error:
        status = "stopped" if isinstance(error, KeyboardInterrupt | SystemExit) else "failed"
        raise
    finally:
        recording.finish(status)


def _steps(recording: Recording, state: State | None, fit: bool) -> Iterator[Step]:
    """Run the loop. Where it diverges (once) or, with `fit`, memory runs out, go on from the last state, changed."""
    session, calmed = recording.session, False
    while True:
        try:
            with watched(session.settings, fit=fit):
                yield from session.steps(state)
            return
        except Diverged as error:
            if calmed or recording.last.state is None:
                raise
            calmed, why = True, error.what
            change: dict[str, Any] = {"step_size": session.settings.step_size / 2}
        except OutOfMemory as error:
            smaller = smaller_chunk(session.settings, session.device)
            if not fit or not smaller:
                raise
            why, change = error.what, {"chunk": smaller}
        state = recording.last.state
        session.change(change)
        told = ", ".join(f"{name} {value:g}" for name, value in change.items()).replace("_", " ")
        session.notes += (f"{why}: going on from step {recording.last.step} with {told}",)
        recording.change(recording.last.step, change)
