"""What the tests of drafting share: requests without a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from outrider import SamplingParams
from outrider.sampling.sampler import Sampler

if TYPE_CHECKING:
    from outrider.engine.request import Request


@dataclass(eq=False)
class _Stub:
    """What drafting reads of a request."""

    id: str
    tokens: list[int]
    room: int
    params: SamplingParams = field(default_factory=SamplingParams)
    sampler: Sampler = field(default_factory=lambda: Sampler(None))


def stub(
    number: int = 0, *, tokens: int = 4, room: int = 10**6, num_speculative_tokens: int | None = None
) -> Request:
    """A request of so many tokens that may draft so many more."""
    params = SamplingParams(num_speculative_tokens=num_speculative_tokens)
    return cast("Request", _Stub(str(number), [0] * tokens, room, params))
