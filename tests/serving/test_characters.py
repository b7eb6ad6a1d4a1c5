"""A text that cannot fit is refused before it is tokenized."""

from __future__ import annotations

from typing import Any

import pytest

from outrider import LLM
from outrider.errors import RequestError
from tests.factories import SPECIAL
from tests.serving.harness import Served

LONGEST = max(map(len, SPECIAL))
TOO_LONG = "x" * (1023 * LONGEST + 1)


def unread(*_: Any, **__: Any) -> Any:
    raise AssertionError


@pytest.mark.parametrize("many", [False, True])
def test_such_a_text_is_not_tokenized(served: Served, many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service.prompts, "of_texts", unread)
    answer = served.post("/v1/completions", prompt=["on", TOO_LONG] if many else TOO_LONG)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == (
        f"the prompt has {len(TOO_LONG)} characters, and no token more than {LONGEST}: with "
        "max_model_len = 1024 it can have 1023 tokens at most, and one is generated"
    )


def test_nor_is_such_a_conversation(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.service.prompts, "of_texts", unread)
    answer = served.post("/v1/chat/completions", messages=[{"role": "user", "content": TOO_LONG}])
    assert answer.status_code == 400
    assert "tokens at most, and one is generated" in answer.json()["error"]["message"]


def test_nor_offline(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = LLM(target, device="cpu", max_model_len=1024)
    monkeypatch.setattr(llm.reader, "encode", unread)
    with pytest.raises(RequestError, match="tokens at most, and one is generated"):
        llm.generate(TOO_LONG, use_tqdm=False)


def test_the_longest_that_may_fit_is_tokenized(served: Served) -> None:
    """Of the longest token alone, which fits; and others, whose tokens the engine counts."""
    fits = served.post("/v1/completions", prompt=SPECIAL[0] * 1023, max_tokens=1)
    assert fits.status_code == 200
    refused = served.post("/v1/completions", prompt="x" * 1024 * 5, max_tokens=1)
    assert refused.json()["error"]["message"].startswith("the prompt has 5120 tokens; with max_model_len")
    counted = served.post("/tokenize", prompt="x" * (1024 * LONGEST))
    assert counted.json()["count"] == 1024 * LONGEST
