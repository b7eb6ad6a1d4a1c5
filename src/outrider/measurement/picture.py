"""The picture of `outrider tune`: tokens/s over draft length."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from outrider.errors import ConfigError
from outrider.measurement.bench import AUTO
from outrider.measurement.tune import Sweep, by_category

FORMATS = (".png", ".svg")
COLUMNS = 3
PANEL = (4.6, 3.4)  # inches
TITLE = 0.6  # inches, legend included
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's
TICKS = (1, 1.5, 2, 3, 4, 5, 6, 8)  # of each decade


def check_format(path: Path) -> None:
    """Raise ConfigError unless the name says what kind of picture it is to be."""
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"picture {str(path)!r}: the name has to end in {' or '.join(FORMATS)}")


def draw(sweeps: Sequence[Sweep], title: str) -> Figure:
    """A panel a category, with a line a batch size and, to its right, what the automatic length reached where
    it was run."""
    groups = by_category(sweeps)
    columns = min(COLUMNS, len(groups))
    rows = ceil(len(groups) / columns)
    size = (columns * PANEL[0], rows * PANEL[1] + TITLE)
    figure = Figure(figsize=size, layout="constrained", dpi=150)
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for panel, (category, members) in zip(panels, groups.items(), strict=False):
        _panel(panel, members)
        panel.set_title(category, fontsize="medium")
    for panel in panels[len(groups) :]:
        panel.remove()
    lines, labels = panels[0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _panel(panel: Axes, sweeps: Sequence[Sweep]) -> None:
    fixed = sweeps[0].fixed
    beyond = fixed[-1] + max(1.0, fixed[-1] / 8)
    for number, sweep in enumerate(sweeps):
        colour = COLOURS[number % len(COLOURS)]
        speeds = [sweep.tokens_per_s(length) for length in fixed]
        panel.plot(fixed, speeds, color=colour, marker=".", label=f"batch {sweep.batch_size}")
        if sweep.automatic:
            auto = sweep.tokens_per_s(AUTO)
            panel.plot([beyond], [auto], color=colour, marker="*", markersize=11)
            panel.axhline(auto, color=colour, linewidth=0.8, linestyle=":")
    ticks = {
        **{float(length): str(length) for length in fixed},
        **({beyond: "auto"} if sweeps[0].automatic else {}),
    }
    panel.set_xticks(list(ticks), list(ticks.values()))
    panel.set_xlabel("draft length K")
    panel.set_ylabel("tokens/s")
    if len(sweeps) > 1:  # so that the same gain is as high for a small batch as for a large one
        panel.set_yscale("log")
        panel.yaxis.set_major_locator(LogLocator(subs=TICKS))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.minorticks_off()
    panel.grid(alpha=0.25)
