"""What a load does to latencies and to speculation, drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from benchmarks.fleet.simulate import Seen

Line = tuple[str, str, Sequence[tuple[float, Seen]]]
"""(drafts, router, what was seen by load)"""

PANELS: tuple[tuple[str, Callable[[Seen], float]], ...] = (
    ("TTFT, 99th percentile, ms", lambda seen: 1e3 * seen.ttft_p99),
    ("TPOT, mean, ms", lambda seen: 1e3 * seen.tpot_mean),
    ("tokens that a step gives a request", lambda seen: seen.length),
)
STYLES = {"round robin": ":", "least loaded": "--", "prefix-aware": "-"}


def draw(lines: Sequence[Line], title: str, path: str) -> None:
    """A panel each; a colour for a length of drafts, a style for a router."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    drafts = list(dict.fromkeys(name for name, _, _ in lines))
    for axes, (label, value) in zip(figure.subplots(1, len(PANELS)), PANELS, strict=True):
        for name, router, seen in lines:
            axes.plot(
                [load for load, _ in seen],
                [value(each) for _, each in seen],
                STYLES[router],
                color=f"C{drafts.index(name)}",
                label=f"drafts {name}, {router}",
                marker=".",
            )
        axes.set_xlabel("load")
        axes.set_title(label, fontsize=10)
        axes.set_ylim(bottom=0)
    figure.axes[0].legend(fontsize=7)
    figure.suptitle(title)
    figure.savefig(path, dpi=110)
