"""Beam search: the likeliest continuations that a search of a fixed width finds. Names are vLLM's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from pydantic import PositiveInt

from outrider.foreign import Only, Rule
from outrider.outputs import Logprobs, RequestOutput
from outrider.params import SamplingParams
from outrider.validation import Strict

CANDIDATES = 2
"""Next tokens of a beam that are looked at, for each beam that is kept: half may end it and leave enough."""


class BeamSearchParams(Strict):
    """Raises ConfigError for a value out of range."""

    foreign: ClassVar[Mapping[str, Rule]] = {
        "temperature": Only((0,), "nothing is drawn in a beam search; give 0"),
        "include_stop_str_in_output": Only(
            (False,), "tokens hold the EOS that ended a beam, and the text too"
        ),
        "structured_outputs": Only((), "use SamplingParams with structured_outputs"),
    }

    beam_width: PositiveInt
    """Beams that are kept after each token, and sequences that come back."""
    max_tokens: PositiveInt
    ignore_eos: bool = False
    length_penalty: float = 1.0
    """The score of a beam is its log-probability over its length, prompt counted, to this power."""


@dataclass(frozen=True)
class BeamSearchSequence:
    """tokens: with the prompt's, and with the EOS that ended it; text: of all of them; logprobs: of each
    generated token, with the others that were looked at there."""

    tokens: list[int]
    logprobs: list[Logprobs] = field(repr=False)
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: int | None = None


@dataclass(frozen=True)
class BeamSearchOutput:
    """The best sequences of a prompt, the best one first."""

    sequences: list[BeamSearchSequence]


Generate = Callable[[Sequence[Sequence[int]], SamplingParams], Sequence[RequestOutput]]
"""Completes prompts of token ids."""


@dataclass
class _Search:
    """One prompt's: beams that go on, and those that have ended."""

    beams: list[BeamSearchSequence]
    ended: list[BeamSearchSequence] = field(default_factory=list)

    def end(self, over: Callable[[BeamSearchSequence], bool]) -> None:
        """Beams that are over go on no more."""
        self.ended += [beam for beam in self.beams if over(beam)]
        self.beams = [beam for beam in self.beams if not over(beam)]


def beam_search(
    prompts: Sequence[Sequence[int]],
    params: BeamSearchParams,
    *,
    generate: Generate,
    decode: Callable[[Sequence[int]], str],
    eos: Sequence[int],
    max_model_len: int,
) -> list[BeamSearchOutput]:
    """Search from each prompt, all at once. Of equal scores, the one whose beam was better goes first, then
    the likelier token.

    A beam that fills `max_model_len` positions ends there. Raises what `generate` does.
    """
    candidates = CANDIDATES * params.beam_width
    asked = SamplingParams(temperature=0, max_tokens=1, logprobs=candidates, detokenize=False)
    ends = () if params.ignore_eos else eos
    searches = [_Search([BeamSearchSequence(list(prompt), [])]) for prompt in prompts]

    def best(beams: Sequence[BeamSearchSequence]) -> list[BeamSearchSequence]:
        ranked = sorted(beams, key=lambda beam: _score(beam, eos, params.length_penalty), reverse=True)
        return ranked[: params.beam_width]

    for _ in range(params.max_tokens):
        beams = [beam for search in searches for beam in search.beams]
        if not beams:
            break
        outputs = iter(generate([beam.tokens for beam in beams], asked))
        for search in searches:
            search.beams = [new for beam in search.beams for new in _grown(beam, next(outputs), ends)]
            search.end(lambda beam: beam.finish_reason is not None)
            search.beams = best(search.beams)
            search.end(lambda beam: len(beam.tokens) >= max_model_len)
    return [
        BeamSearchOutput(
            [
                replace(beam, text=decode(beam.tokens), finish_reason=beam.finish_reason or "length")
                for beam in best([*search.ended, *search.beams])
            ]
        )
        for search in searches
    ]


def _grown(beam: BeamSearchSequence, output: RequestOutput, ends: Sequence[int]) -> list[BeamSearchSequence]:
    """The beam with each of its likeliest next tokens."""
    (likeliest,) = output.outputs[0].logprobs or ()
    return [
        BeamSearchSequence(
            [*beam.tokens, token],
            [*beam.logprobs, likeliest],
            beam.cum_logprob + found.logprob,
            finish_reason="stop" if token in ends else None,
            stop_reason=token if token in ends else None,
        )
        for token, found in likeliest.items()
    ]


def _score(beam: BeamSearchSequence, eos: Sequence[int], penalty: float) -> float:
    length = len(beam.tokens) - (beam.tokens[-1] in eos)
    return float(beam.cum_logprob / length**penalty)
