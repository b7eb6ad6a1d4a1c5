"""A request's `cache_salt`: nothing of other requests shows in what it finds in the cache."""

from __future__ import annotations

from typing import Any

import pytest

from tests.serving.harness import Served
from tests.serving.test_refusals import TEXT, error_of

LONG = "the end of the line " * 12


def cached(served: Served, path: str, salt: str | None) -> int:
    """Tokens of the prompt that were found in the cache."""
    given: dict[str, Any] = {} if salt is None else {"cache_salt": salt}
    messages = [{"role": "user", "content": LONG}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": LONG, "max_tokens": 2, **given},
        "/v1/chat/completions": {"messages": messages, "max_tokens": 2, **given},
        "/v1/messages": {"model": "tiny", "messages": messages, "max_tokens": 2, **given},
        "/v1/responses": {"input": LONG, "max_output_tokens": 2, **given},
    }
    answer = served.post(path, **bodies[path])
    assert answer.status_code == 200, answer.text
    assert "cache_salt" not in answer.headers.get("x-outrider-ignored", "")
    usage = answer.json()["usage"]
    if path == "/v1/messages":
        return int(usage["cache_read_input_tokens"])
    details = usage["input_tokens_details" if path == "/v1/responses" else "prompt_tokens_details"]
    return int(details["cached_tokens"])


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_prompts_are_found_by_those_of_the_same_salt(served: Served, path: str) -> None:
    salts = [f"{path} {tenant}" for tenant in "ab"]
    assert [cached(served, path, salt) for salt in salts] == [0, 0]
    assert min(cached(served, path, salt) for salt in salts) >= 16
    cached(served, path, None)
    assert cached(served, path, f"{path} c") == 0


@pytest.mark.parametrize("salt", ["", 5, "x" * 1025])
def test_what_can_be_no_salt_is_refused(served: Served, salt: Any) -> None:
    answer = served.post(TEXT, prompt="on", cache_salt=salt)
    assert error_of(answer, 400)["param"] == "cache_salt"
