"""A model from a file with its drafter: the promise, and tokens a second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.card import Card
from benchmarks.gpu.report import Absent, Finding
from benchmarks.gpu.sizes import Sizes
from benchmarks.peers.prompts import token_ids
from outrider import LLM, ModelError
from outrider.measurement.bench import AFRESH, bench
from outrider.measurement.bench import shown as shown_length
from outrider.measurement.loads import at_all_lengths
from outrider.measurement.verify import verify as cases
from outrider.models.checkpoint import locate


@dataclass(frozen=True)
class Pair:
    """A model and its drafter, on a card."""

    card: Card
    sizes: Sizes
    model: str
    drafter: str

    @property
    def path(self) -> Path:
        """Raises Absent where there is no such file."""
        try:
            return locate(self.model)
        except ModelError as error:
            raise Absent(f"{error}; give --model") from None

    def loaded(self, **options: Any) -> LLM:
        return LLM(
            str(self.path),
            device=self.card.name,
            backend="triton",
            kv_cache_memory=self.sizes.cache,
            max_num_seqs=max(self.sizes.together),
            speculative_model=self.drafter,
            num_speculative_tokens=self.sizes.length,
            **options,
        )


def verify(pair: Pair) -> Iterator[Finding]:
    """Each setting, and on how many prompts the tokens are not the target's alone."""
    sizes = pair.sizes
    prompts = token_ids(str(pair.path), sizes.conversations)
    for case in cases(
        at_all_lengths(pair.loaded()),
        pair.drafter,
        lambda llm: prompts,
        lengths=sizes.lengths,
        temperatures=sizes.temperatures,
        batch_sizes=sizes.together,
        max_tokens=sizes.answer,
    ):
        name = f"length {shown_length(case.length)}, temperature {case.temperature}, batch {case.batch_size}"
        yield name, asdict(case) | {"outcome": case.outcome}


def speeds(pair: Pair) -> Iterator[Finding]:
    """`outrider bench` by batch, over all prompts."""
    llm = pair.loaded(**AFRESH)
    for batch in pair.sizes.together:
        results = bench(
            at_all_lengths(llm),
            pair.sizes.conversations,
            batch_sizes=[batch],
            temperature=0.0,
            max_tokens=pair.sizes.answer,
            rounds=min(2, pair.sizes.rounds),
            advance=lambda what, count: None,
        )
        yield f"batch {batch}", results[0].as_json()
