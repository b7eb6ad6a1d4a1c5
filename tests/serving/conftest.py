"""A server that many tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from outrider import LLM
from tests.engine.helpers import load
from tests.serving.browser import browsing, watched
from tests.serving.harness import Served, running


@pytest.fixture(scope="session")
def served(target: str, draft: str) -> Iterator[Served]:
    """Target and draft model, with drafts of three tokens; it embeds texts too."""
    llm = load(target, draft, num_speculative_tokens=3, pooling="mean")
    with running(llm) as served:
        yield served


@pytest.fixture(scope="session")
def offline(target: str) -> LLM:
    """The target alone, without a server."""
    return load(target)


@pytest.fixture(scope="session")
def chained(target: str, draft: str) -> Iterator[Served]:
    """N-grams, then a draft model."""
    llm = LLM(
        target,
        device="cpu",
        speculative_model=["ngram", draft],
        prompt_lookup_min=1,
        num_speculative_tokens=3,
        suffix_memory=0,  # each test sees drafts that fall, whatever was asked before
    )
    with running(llm) as served:
        yield served


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with browsing() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser) as page:
        yield page
