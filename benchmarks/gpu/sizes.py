"""How much is measured: on a card, and in Triton's interpreter, which is some ten thousand times slower."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.random_models import SHAPES, Shape
from outrider.measurement.prompts import BUILT_IN, Conversation


@dataclass(frozen=True)
class Sizes:
    """How large things are, and how many.

    memory: bytes that are read to measure the bandwidth. small: a model whose rows are compared in each of
    `formats`: of `requests` with a `context` each, in passes of each of `counts` rows. large: a model that
    people run, with weights of about 4 bits by a mix of `random_models.MIXES`. timed: rows of passes that are
    timed, `rounds` times each; layers: formats of its layers that are timed alone. batches: of requests that
    decode `tokens` each, after `prompt` tokens. max_rows: of a pass; cache: bytes of K and V. conversations:
    that the model from a file is asked, so many `together`, for `answer` tokens, with drafts of `length`;
    lengths, temperatures: that are verified.
    """

    memory: int
    small: Shape
    formats: Sequence[str]
    requests: int
    context: int
    counts: Sequence[int]
    large: Shape
    four_bits: str
    layers: Sequence[str]
    timed: Sequence[int]
    rounds: int
    batches: Sequence[int]
    prompt: int
    tokens: int
    max_rows: int
    cache: int
    conversations: Sequence[Conversation]
    answer: int
    together: Sequence[int]
    length: int | Literal["auto"]
    lengths: Sequence[int | None]
    temperatures: Sequence[float]


CARD = Sizes(
    memory=2**32,
    small=Shape("llama", 4096, 2048, 2048, 2, 16, 4, 1e5),
    formats=(
        "BF16", "Q4_K", "Q6_K", "U4_128", "Q4_0", "F8_BLOCK", "Q8_0", "F16", "F8_E4M3", "MXFP4", "Q8_CHANNEL",
        "Q5_K", "Q4_1", "Q5_0", "Q5_1", "IQ4_NL", "IQ4_XS", "Q3_K", "Q2_K", "U4_64", "U4_32", "F32",
    ),
    requests=4,
    context=600,
    counts=range(1, 65),
    large=SHAPES["8B"],
    four_bits="Q4_K_M",
    layers=("BF16", "Q4_K", "Q6_K", "U4_128", "F8_BLOCK", "Q4_0", "Q8_0", "F8_E4M3", "MXFP4"),
    timed=(1, 2, 4, 8, 16, 32, 64),
    rounds=20,
    batches=(1, 8, 32),
    prompt=64,
    tokens=200,
    max_rows=512,
    cache=2**32,
    conversations=BUILT_IN,
    answer=128,
    together=(1, 8),
    length="auto",
    lengths=(1, 4, 8, None),
    temperatures=(0.0, 0.8),
)  # fmt: skip
TINY = Shape("llama", 260, 64, 64, 1, 2, 1, 1e5)
TOY = Sizes(
    memory=2**15,
    small=TINY,
    formats=("BF16",),
    requests=2,
    context=2,
    counts=(3,),
    large=TINY,
    four_bits="Q4_1",
    layers=("Q8_0",),
    timed=(1, 2),
    rounds=1,
    batches=(2,),
    prompt=2,
    tokens=7,
    max_rows=4,
    cache=2**15,
    conversations=(Conversation("toy", ("Hi",)),),
    answer=4,
    together=(1,),
    length=2,
    lengths=(2,),
    temperatures=(0.0,),
)
