"""Two servers of one model, with speculation and without, that clients are driven against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from outrider import LLM
from tests.serving.harness import Served, running

MODEL = "smollm2"


@dataclass(frozen=True)
class Both:
    """A server that speculates, and one that does not."""

    speculating: Served
    plain: Served

    def same(self, ask: Callable[[str], Any]) -> Any:
        """What `ask` makes of either server, which has to be the same. It is given the server's address."""
        answer, expected = ask(self.speculating.url), ask(self.plain.url)
        assert answer == expected
        return answer


@pytest.fixture(scope="session")
def both() -> Iterator[Both]:
    with (
        running(
            LLM(MODEL, speculative_model="ngram", num_speculative_tokens=4), model_name=MODEL
        ) as speculating,
        running(LLM(MODEL), model_name=MODEL) as plain,
    ):
        yield Both(speculating, plain)
