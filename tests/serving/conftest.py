"""A server that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from outrider import LLM
from tests.engine.helpers import load
from tests.serving.harness import Served, running


@pytest.fixture(scope="session")
def served(target: str, draft: str) -> Iterator[Served]:
    """Target and draft model, with drafts of three tokens."""
    llm = load(target, draft, num_speculative_tokens=3)
    with running(llm) as served:
        yield served


@pytest.fixture(scope="session")
def offline(target: str) -> LLM:
    """The target alone, without a server."""
    return load(target)
