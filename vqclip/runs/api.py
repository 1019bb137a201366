"""The functions of `import vqclip`: keyword arguments, over generate.py, resume.py and sample.py.

Their `**values` are fields of Settings, fields of Output (runs="runs" makes a run directory, out="heart.png" writes the
image; checkpoint_every as text: "50" steps, "30s" or "0") and functions as Callbacks takes them: on_start gets the
session and the run directory before anything is drawn; on_step gets every step, and may return True to end the run
there; on_code gets the codes of candidates drawn, and of how many, and may return True as well; on_note gets remarks.
`progress` is an object that is told the same. `networks` keeps loaded models for the calls that follow.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..config.addresses import FOLDER, Downloads, fetch_addresses
from ..config.resolve import drawn_seed, is_any_seed, resolve, seeded
from ..config.styles import expand_prompts
from ..errors import UsageError
from ..files.paths import expand
from ..settings.expansion import check_plain
from ..settings.schema import Settings
from . import generate as generating
from . import resume as resuming
from . import sample as sampling
from . import several as generating_several
from .networks import Networks
from .output import Interval, Output
from .progress import Callbacks, Observers, Progress
from .recorder import Result
from .records import KEEP
from .session import Session

RESUME_TAKES = ("out", "overwrite", "fit")  # of Output; the rest is as it was
CALLBACKS = ("on_start", "on_step", "on_code", "on_note")


def generate(
    prompt: str | Settings = "",
    *,
    preset: str = "auto",
    allow_url: bool = False,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
    **values: Any,
) -> Result:
    """Make one image from a prompt and any fields of Settings, or from Settings that are complete.

    values: settings by the names that `vqclip settings` lists (seed=7, steps=50, init_image="cat.jpg", size="icon"),
    over the preset's; runs="runs" makes a run directory, out="heart.png" writes the image. Nothing is printed: with
    progress=Show() of vqclip.report.notebook a notebook shows it; on_step=lambda step: ... gets every step, and may
    return True to end the run there; on_start, on_code, on_note are at the top of vqclip/runs/api.py.
    allow_url: fetch images that are given by an https address, into `downloads` beside the runs.

    Raises a VqclipError: UsageError, InputError, ModelError, OutputError, OutputExists, OutOfMemory, Diverged.
    """
    output, progress, values = _split(values, progress)
    values = fetch_addresses(values, Downloads((output.runs or Path()) / FOLDER, allow_url))
    settings = _resolved(prompt, preset, values)
    output.check()
    return generating.generate(settings, output, device=device, networks=networks, progress=progress).checked()


def generate_many(
    prompts: str | Sequence[str],
    *,
    count: int = 1,
    styles: Sequence[str] = (),
    ranker: str | None = None,
    preset: str = "auto",
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
    **values: Any,
) -> list[Result]:
    """Make `count` images of each prompt, of consecutive seeds; return them prompt by prompt, the best first.

    Alternatives in a prompt ({red|blue}, {1..5}, __list__) are prompts of their own. styles: names from styles.toml.
    ranker: the CLIP that ranks; without one that of `judge_of`. values: as of `generate`, without `out`.

    Raises what `generate` raises.
    """
    output, progress, values = _split(values, progress)
    if output.out:
        raise UsageError("out is for one image", "give runs, or save the pictures of what is returned")
    seed = values.pop("seed", None)
    seed = drawn_seed() if is_any_seed(seed) else seed
    sources = [prompts] if isinstance(prompts, str) else prompts
    texts = [text for source in sources for text in expand_prompts(source, styles)]
    settings = seeded([resolve(text, preset, seed, **values) for text in texts], count)
    output.check()
    made = generating_several.generate_several(settings, output, device=device, networks=networks, progress=progress)
    groups = generating_several.ranked(settings, list(made), ranker, device)
    return [item.result for group in groups for item in group]


def resume(
    folder: str | Path,
    *,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Result:
    """Go on with a run that was stopped, by whatever, to the bytes that it would have ended with.

    It goes on from its last checkpoint; what was written after that is made again. changes: settings for the steps to
    come, `steps` for instance; `out`, `overwrite`, `fit` and callbacks. A run that is done, and of which nothing
    changes, is left as it is.

    Raises what `generate` raises, RunLocked, and IntegrityError if no checkpoint is sound.
    """
    if fixed := [field.name for field in fields(Output) if field.name in changes and field.name not in RESUME_TAKES]:
        what = f"{fixed[0].replace('_', '-')} can't change in a run that has begun"
        raise UsageError(what, "leave it out: a resumed run writes what it wrote at its beginning")
    output, progress, changes = _split(changes, progress)
    output.check()
    return resuming.resume(folder, changes, output, device=device, networks=networks, progress=progress).checked()


def sample(
    prompt: str,
    *,
    count: int | None = None,
    keep: int = KEEP,
    device: str = "auto",
    networks: Networks | None = None,
    progress: Progress | None = None,
    **values: Any,
) -> sampling.Sampled:
    """Draw `count` candidates from a prompt, and keep the `keep` that CLIP finds nearest to it.

    values: see the top of the file, and `sample_settings`; `out` is a folder. Stopped, it ranks and writes the
    candidates that are whole.

    Raises UsageError, ModelError, IntegrityError, OutOfMemory, OutputError, OutputExists, RunLocked.
    """
    output, progress, values = _split(values, progress)
    settings = sampling.sample_settings(prompt, count, **values)
    return sampling.sample(
        settings, output, keep=keep, seeded=values.get("seed") is not None, device=device, networks=networks,
        progress=progress,
    )  # fmt: skip


def prepare(
    prompt: str | Settings = "",
    device: str = "auto",
    networks: Networks | None = None,
    *,
    preset: str = "auto",
    **values: Any,
) -> Session:
    """Load the models of an image, as `generate` would make it, and embed its prompts.

    `steps()` of what is returned runs the loop; `finished(picture(step.latent))` is the image after a step. values:
    fields of Settings. Raises UsageError, InputError, ModelError.
    """
    return Session.load(_resolved(prompt, preset, values), device, networks)


def _resolved(prompt: str | Settings, preset: str, values: dict[str, Any]) -> Settings:
    """Return the settings of an image. Raises UsageError for single values beside complete ones."""
    if not isinstance(prompt, Settings):
        return resolve(check_plain(prompt), preset, values.pop("seed", None), **values)
    if values:
        what = "single values stand beside complete settings"
        raise UsageError(what, "change them: settings.model_copy(update={...})")
    return prompt


def _split(values: dict[str, Any], progress: Progress | None) -> tuple[Output, Progress, dict[str, Any]]:
    """Return what keyword arguments say of the output and of the progress, and the settings among them."""
    written = {field.name: values[field.name] for field in fields(Output) if field.name in values}
    written |= {name: expand(written[name]) for name in ("runs", "out") if written.get(name)}
    if isinstance(written.get("checkpoint_every"), str):
        written["checkpoint_every"] = Interval.parse(written["checkpoint_every"])
    heard = {name: values[name] for name in CALLBACKS if name in values}
    settings = {name: value for name, value in values.items() if name not in written | heard}
    return Output(**written), Observers(progress or Progress(), Callbacks(**heard)), settings
