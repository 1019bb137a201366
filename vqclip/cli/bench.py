"""vqclip bench: how fast this machine draws, and what to change."""

import json
import os
from pathlib import Path
from typing import Any

from ..config.layers import gather
from ..text import plural
from .commands import MACHINE, command
from .options import AsJson, Config, Device, Preset, Quiet, takes_settings
from .progress import loading, progress_bar, put, say_all

EXAMPLES = """
Examples:

  vqclip bench

  vqclip bench --preset standard --size 384x384 --cutouts 32
"""


@command(MACHINE, examples=EXAMPLES)
@takes_settings(without=["seed"])
def bench(
    *,
    values: dict[str, Any],
    preset: Preset = None,
    config: Config = None,
    device: Device = "auto",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure steps a second, where the time goes, and what cheaper settings would gain; nothing is written."""
    settings, _ = gather(
        values, config=config, preset_name=preset, environ=os.environ, folder=Path(), prompt="a red heart"
    )

    loading(quiet=quiet)
    from ..runs.bench import bench as measure

    with progress_bar("measurement", quiet=quiet) as bar:
        report = measure(settings, device, on_measured=bar.at)
    now, (width, height) = report.paces[0], report.settings.size
    if as_json:
        ways = [vars(pace) | {"times_as_fast": round(now.picture / pace.picture, 3)} for pace in report.paces]
        put(json.dumps({"settings": report.settings.model_dump(mode="json"), "device": report.device,
                        "threads": report.threads, "ways": ways, "parts": report.parts.record(),
                        "memory": report.memory, "free": report.free}))  # fmt: skip
        return
    put(f"{report.settings.vqgan} and {' + '.join(report.settings.clips)}, {width}x{height}, {report.settings.cutouts} "
        f"cutouts, {report.settings.precision}, on {report.device} with "
        f"{plural(report.threads, 'thread')}")  # fmt: skip
    steps = report.settings.steps
    half = f", {1 / now.coarse:.2f} at half" if now.coarse else ""
    more = ", and what drawing its candidates takes" if report.settings.starts_from_candidates() else ""
    put(f"{1 / now.step:.2f} steps a second at full size{half}; an image of {plural(steps, 'step')} takes "
        f"{now.picture:.1f} s{more}")  # fmt: skip
    if report.memory:
        put(f"a step needs about {report.memory / 1e9:.2f} GB of memory; {report.free / 1e9:.1f} GB are free")
    put("\nwhere a step's time goes")
    for line in report.parts.table():
        put(f"  {line}")
    if len(report.paces) > 1:
        put("\nwhat a change does")
    for pace in sorted(report.paces[1:], key=lambda pace: pace.picture):
        put(f"  {pace.name:<24} {now.picture / pace.picture:6.2f} times as fast, {pace.picture:7.1f} s an image")
    alone = ["such long steps are not tried with changes too; try a smaller --size"] * (len(report.paces) == 1)
    waver = "fewer --steps take less in proportion; on a machine with other work these figures waver"
    say_all([*alone, waver], quiet=quiet)
