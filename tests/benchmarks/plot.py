"""Plots of what the benchmarks measured, as PNG or SVG; matplotlib comes with `pip install ".[bench]"`."""

from pathlib import Path
from typing import Any

COLOURS = ("#1f6fb4", "#d1495b", "#3c8d5a", "#8d5a97", "#e0902f")


def figure(path: Path, panels: list[dict[str, Any]], title: str) -> None:
    """Draw panels side by side.

    A panel is {"title", "x", "y", "lines": name -> [(x, y) or (x, y, low, high)], "log": bool, "bars": [(name, value)]}.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(1, len(panels), figsize=(4.6 * len(panels), 3.8), squeeze=False, layout="constrained")
    for panel, axis in zip(panels, axes[0], strict=True):
        for colour, (name, points) in zip(COLOURS * 3, panel.get("lines", {}).items(), strict=False):
            columns = list(zip(*points, strict=True))
            axis.plot(columns[0], columns[1], "o-", color=colour, label=name, markersize=4)
            if len(columns) == 4:
                axis.fill_between(columns[0], columns[2], columns[3], color=colour, alpha=0.15, linewidth=0)
        for k, (name, value) in enumerate(panel.get("bars", [])):
            axis.barh(k, value, color=COLOURS[k % len(COLOURS)])
            axis.annotate(f" {value:.3g}", (value, k), va="center")
        if "bars" in panel:
            axis.set_yticks(range(len(panel["bars"])), [name for name, _ in panel["bars"]])
            axis.invert_yaxis()
            axis.margins(x=0.15)
        if panel.get("log"):
            axis.set_xscale("log", base=2)
            axis.set_yscale("log", base=2)
        else:
            axis.set_ylim(bottom=0)
        axis.set(title=panel.get("title", ""), xlabel=panel.get("x", ""), ylabel=panel.get("y", ""))
        axis.grid(alpha=0.25)
        if len(panel.get("lines", {})) > 1:
            axis.legend(fontsize=8)
    drawn.suptitle(title)
    drawn.savefig(path, dpi=110)
    plt.close(drawn)
