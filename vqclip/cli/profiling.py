"""--profile: where the time of a run went, written to its folder and told on stderr."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..files.atomic import write_atomic
from .progress import say

if TYPE_CHECKING:
    from ..runs.profile import Stopwatch
    from ..runs.session import Session


class Profiling:
    """Watches a run where that is wanted."""

    def __init__(self, *, wanted: bool, quiet: bool) -> None:
        self.wanted, self.quiet = wanted, quiet
        self._watch: Stopwatch | None = None

    def start(self, session: "Session") -> None:
        """Begin, before the first step."""
        if self.wanted:
            from ..runs.profile import Stopwatch

            self._watch = Stopwatch()
            self._watch.attach(session)

    def finish(self, folder: Path | None) -> None:
        """Write profile.json into the run's folder. Raises OutputError."""
        if self._watch and folder:
            write_atomic(folder / "profile.json", json.dumps(self._watch.record(), indent=1).encode(), replace=True)
        if self._watch and not self.quiet:
            for line in self._watch.table():
                say(line)
