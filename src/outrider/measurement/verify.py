"""Proof of the promise on a user's own pair: plain against speculative token ids."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Literal

from outrider.measurement.bench import Length
from outrider.measurement.loads import Loads
from outrider.measurement.prompts import chunks
from outrider.measurement.ties import Gap, first_difference, gap_at
from outrider.params import SamplingParams

if TYPE_CHECKING:
    from outrider.llm import LLM

PLAIN = 0
Outcome = Literal["equal", "near-tie", "different"]


@dataclass(frozen=True)
class Difference:
    """Where two runs part: prompt index, output position, and the tokens (None: one ended).

    gap: None where rounding is not measured: an exact backend has none, and other engines tell of none.
    """

    prompt: int
    position: int
    plain: int | None
    speculative: int | None
    gap: Gap | None

    @property
    def is_rounding(self) -> bool:
        return self.gap is not None and self.gap.is_rounding


@dataclass(frozen=True)
class Case:
    """One setting and what came of it. accepted and drafted: tokens, over all prompts."""

    drafter: str
    length: Length
    temperature: float
    batch_size: int
    prompts: int
    drafted: int
    accepted: int
    differences: tuple[Difference, ...]

    @property
    def outcome(self) -> Outcome:
        if not self.differences:
            return "equal"
        return "near-tie" if all(d.is_rounding for d in self.differences) else "different"


def verify(
    loads: Loads,
    drafter: str,
    lay_out: Callable[[LLM], Sequence[Sequence[int]]],
    *,
    lengths: Sequence[Length],
    temperatures: Sequence[float],
    batch_sizes: Sequence[int],
    max_tokens: int,
    ties: bool = True,
) -> Iterator[Case]:
    """Yield every case as it is done.

    Plain runs go one prompt at a time; speculative ones in batches of each size.

    loads: engines with the drafter; `drafter` is its name for the report. lay_out: the prompts as an engine
    reads them. ties: where an engine is not exact, a difference is judged by how far apart it scores the two
    tokens; without, each counts.
    """

    def params(temperature: float, length: Length, seed: int) -> SamplingParams:
        return SamplingParams(
            temperature=temperature, max_tokens=max_tokens, seed=seed, num_speculative_tokens=length
        )

    prompts: Sequence[Sequence[int]] = ()
    plain: dict[float, list[Sequence[int]]] = {}
    for llm, runs in loads([PLAIN, *(length for length in lengths if length != PLAIN)]):
        if PLAIN in runs:
            prompts = lay_out(llm)
            plain = {
                temperature: [
                    llm.generate(prompt, params(temperature, PLAIN, seed), use_tqdm=False)[0]
                    .outputs[0]
                    .token_ids
                    for seed, prompt in enumerate(prompts)
                ]
                for temperature in temperatures
            }
        wanted = [length for length in runs if length in lengths]
        for temperature, batch_size, length in product(temperatures, batch_sizes, wanted):
            settings = [params(temperature, length, seed) for seed in range(len(prompts))]
            outputs = [
                output.outputs[0]
                for batch in chunks(list(zip(prompts, settings, strict=True)), batch_size)
                for output in llm.generate([p for p, _ in batch], [s for _, s in batch], use_tqdm=False)
            ]
            judged = llm if ties and not llm.about.exact else None  # otherwise nothing is rounding
            differences = (
                _difference(judged, index, prompts[index], settings[index], a, b.token_ids)
                for index, (a, b) in enumerate(zip(plain[temperature], outputs, strict=True))
            )
            yield Case(
                drafter=drafter,
                length=length,
                temperature=temperature,
                batch_size=batch_size,
                prompts=len(prompts),
                drafted=sum(o.speculation.drafted for o in outputs),
                accepted=sum(o.speculation.accepted for o in outputs),
                differences=tuple(d for d in differences if d is not None),
            )


def _difference(
    judge: LLM | None,
    index: int,
    prompt: Sequence[int],
    params: SamplingParams,
    a: Sequence[int],
    b: Sequence[int],
) -> Difference | None:
    """judge: what scores the two tokens, for how near they are."""
    position = first_difference(a, b)
    if position is None:
        return None
    plain = a[position] if position < len(a) else None
    speculative = b[position] if position < len(b) else None
    gap = None
    if plain is not None and speculative is not None and judge is not None:
        gap = gap_at(judge.engine, prompt, a[: position + 1], speculative, params)
    return Difference(index, position, plain, speculative, gap)
