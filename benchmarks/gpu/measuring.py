"""A run: which parts there are, and going on where one has cost the process its device."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from benchmarks.gpu import models
from benchmarks.gpu.card import Card
from benchmarks.gpu.decoding import decoding
from benchmarks.gpu.layers import layers
from benchmarks.gpu.report import Finding, Part, Report, measure_all
from benchmarks.gpu.rows import rows
from benchmarks.gpu.sizes import CARD, TOY, Sizes

Restart = Callable[[Sequence[str], float], object]


def parts_of(card: Card, sizes: Sizes, model: str, drafter: str) -> list[Part]:
    """In order of worth; weights are about the seconds that each takes on a card, compilers counted."""
    pair = models.Pair(card, sizes, model, drafter)

    def bandwidth() -> Iterator[Finding]:
        yield from card.read_bandwidth(sizes.memory).items()

    def beside(large: bool) -> Iterator[Finding]:
        from benchmarks.gpu import beside as transformers  # which may not be installed

        yield from transformers.large_beside(card, sizes) if large else transformers.beside(pair)

    return [
        Part("bandwidth", 5, bandwidth),
        Part("rows", 70, partial(rows, card, sizes)),
        Part("verify", 50, partial(models.verify, pair)),
        Part("8B bfloat16", 45, partial(decoding, card, sizes, "BF16")),
        Part("8B 4 bits", 45, partial(decoding, card, sizes, sizes.four_bits)),
        Part("layers", 40, partial(layers, card, sizes)),
        Part("SmolLM2", 30, partial(models.speeds, pair)),
        Part("beside transformers", 50, partial(beside, large=False)),
        Part("8B beside transformers", 50, partial(beside, large=True)),
    ]


def measure(
    path: Path, seconds: float, model: str, drafter: str, names: Sequence[str] = (), *, restart: Restart
) -> Report:
    """Measure the parts of these names, or all that the file has not, and write it.

    restart: is called with the names of what remains and its seconds where a part has cost the process its
    device. Raises ValueError for a name that no part has.
    """
    card = Card()
    report = Report.of(path, card.about())
    parts = parts_of(card, TOY if card.toy else CARD, model, drafter)
    if unknown := set(names) - {part.name for part in parts}:
        known = ", ".join(part.name for part in parts)
        raise ValueError(f"there is no part {', '.join(sorted(unknown))}; there are {known}")
    wanted = [part for part in parts if (part.name in names if names else report.lacks(part.name))]

    def after(remaining: Sequence[Part], left: float) -> None:
        if not card.works():
            restart([part.name for part in remaining], left)
        card.clear()

    measure_all(report, wanted, seconds, tell=lambda line: sys.stderr.write(f"{line}\n"), after=after)
    return report
