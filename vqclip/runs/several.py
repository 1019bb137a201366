"""Several images of one call: prompts times seeds, models loaded once, the best of each prompt first."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from ..files.images import load_image
from ..settings.schema import Settings
from .generate import generate
from .networks import Networks
from .output import Output
from .progress import Progress
from .rank import Ranker, judge_of
from .recorder import Result
from .run_dir import FINISHED, drawn_image


@dataclass(frozen=True)
class Scored:
    """An image and how near a CLIP finds it to its prompt, from -1 to 1; None where it stands alone."""

    result: Result
    score: float | None


def generate_several(
    settings: Sequence[Settings],
    output: Output,
    *,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """Make images one after the other; yield each as it ended. One that is stopped is the last.

    output: `out` does not count. Raises what `generate` raises.
    """
    networks, progress = networks or Networks(), progress or Progress()
    output = replace(output, out=None)
    for one in settings:
        result = generate(one, output, device=device, networks=networks, progress=progress)
        if result.picture:
            yield result
        if result.status not in FINISHED:
            return


def ranked(
    settings: Sequence[Settings], results: Sequence[Result], ranker: str | None = None, device: str = "auto"
) -> list[list[Scored]]:
    """Return the images of each prompt, the best first, in the order of the prompts.

    settings: as each was asked for, perhaps of more that were not made; a run that diverged, or for which memory was
    short, has others by now. ranker: the CLIP that ranks; without one that of `judge_of`. Raises ModelError for it.
    """
    judge: Ranker | None = None
    groups = []
    pairs = zip(settings, results, strict=False)
    for _, group in itertools.groupby(pairs, key=lambda pair: pair[0].model_copy(update={"seed": 0})):
        members = [result for _, result in group]
        if len(members) == 1:
            groups.append([Scored(members[0], None)])
            continue
        first = members[0].settings
        name = ranker or judge_of(first.clips)
        judge = judge if judge and judge.name == name else Ranker(name, device)
        target = judge.target(first)
        scored = [Scored(result, judge.score(_drawn(result), target)) for result in members]
        groups.append(sorted(scored, key=lambda item: -(item.score or 0.0)))
    return groups


def unranked(results: Sequence[Result]) -> list[list[Scored]]:
    """Return images each by itself, as they were made."""
    return [[Scored(result, None)] for result in results]


def _drawn(result: Result) -> Image.Image:
    """Return an image as the VQGAN drew it, where that is kept."""
    if result.run:
        return load_image(drawn_image(result.run))
    assert result.picture is not None  # of one that was stopped before its start nothing is yielded
    return result.picture
