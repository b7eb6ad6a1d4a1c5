"""The engines that a measurement runs on: one for all draft lengths, or one for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from outrider.measurement.bench import Length

if TYPE_CHECKING:
    from outrider.llm import LLM

Loads = Callable[[Sequence[Length]], Iterator[tuple["LLM", Sequence[Length]]]]
"""Yields, for draft lengths, an engine with those of them that it can run, until all have been run."""


def at_all_lengths(llm: LLM) -> Loads:
    """One engine that runs them all."""

    def loads(lengths: Sequence[Length]) -> Iterator[tuple[LLM, Sequence[Length]]]:
        yield llm, lengths

    return loads


def one_by_one(load: Callable[[Length], LLM]) -> Loads:
    """An engine for each length, which is loaded for it and shut down before the next one is."""

    def loads(lengths: Sequence[Length]) -> Iterator[tuple[LLM, Sequence[Length]]]:
        for length in lengths:
            with load(length) as llm:
                yield llm, [length]

    return loads
