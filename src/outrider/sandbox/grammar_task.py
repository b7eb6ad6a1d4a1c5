"""What workers do that try grammars: compile one with the library llguidance, and walk a few tokens in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import llguidance
from llguidance import LLMatcher, LLTokenizer


def begin(setup: Any) -> Callable[[Any], str]:
    """What tries grammars for a tokenizer (`setup` is of `LLTokenizer`). A job has the grammar's `kind` and
    `text`, the library's `limits`, and the number of `tokens` to walk. The answer is the grammar in the
    library's own form."""
    tokenizer = llguidance.LLTokenizer(**setup)

    def answer(job: Any) -> str:
        definition = llguidance.grammar_from(job["kind"], job["text"])
        matcher = matcher_of(tokenizer, definition, job["limits"])
        for _ in range(job["tokens"]):
            allowed = next((token for token, bias in enumerate(matcher.compute_logit_bias()) if bias), None)
            _check(matcher)
            if allowed is not None:
                matcher.try_consume_tokens([allowed])
        return definition

    return answer


def matcher_of(tokenizer: LLTokenizer, definition: str, limits: dict[str, Any]) -> LLMatcher:
    """A matcher at the beginning of an output. Raises ValueError."""
    matcher = LLMatcher(tokenizer, definition, log_level=0, limits=llguidance.LLParserLimits(**limits))
    _check(matcher)
    return matcher


def _check(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise ValueError(matcher.get_error())
