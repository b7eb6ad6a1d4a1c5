"""An error in the middle of a stream has the form of the API that was asked, and is the stream's end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import ollama
import pytest

from tests.engine.helpers import load
from tests.serving.harness import MODEL, PATIENCE, Gate, Served, running

LATE = "the request took longer than 0.5 s"
MESSAGES: Any = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def stuck(target: str) -> Iterator[Served]:
    """A server whose engine stops after some steps of each test."""
    with running(load(target), request_timeout=0.5) as served:
        yield served


@pytest.fixture(autouse=True)
def _held(stuck: Served) -> Iterator[None]:
    gate = Gate(stuck)
    gate.shut(after=3)
    yield
    gate.open()
    stuck.until_idle()


def test_responses(stuck: Served) -> None:
    events = list(stuck.client().responses.create(model=MODEL, input="hi", stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last: Any = events[-1]
    assert last.type == "response.failed"
    assert last.response.status == "failed"
    assert LATE in last.response.error.message
    assert any(event.type == "response.output_text.delta" for event in events)


def test_messages(stuck: Served) -> None:
    client = anthropic.Anthropic(base_url=stuck.url, api_key="none", max_retries=0, timeout=PATIENCE)
    stream = client.messages.create(model=MODEL, max_tokens=99, messages=MESSAGES, stream=True)
    seen: list[str] = []
    with pytest.raises(anthropic.APIStatusError, match=LATE) as failed:
        seen.extend(event.type for event in stream)
    body: Any = failed.value.body
    assert body["error"]["type"] == "timeout_error"
    assert "content_block_delta" in seen


def test_ollama(stuck: Served) -> None:
    client = ollama.Client(host=stuck.url, timeout=PATIENCE)
    lines: list[ollama.ChatResponse] = []
    with pytest.raises(ollama.ResponseError, match=LATE):
        lines.extend(client.chat(MODEL, MESSAGES, stream=True))
    assert lines
    assert not any(line.done for line in lines)


def test_whole(stuck: Served) -> None:
    """Not streamed, it is a status."""
    late = f"{LATE}; ask for fewer tokens"
    asked = {"model": MODEL, "messages": MESSAGES, "stream": False}
    answer = stuck.post("/v1/messages", **asked, max_tokens=99)
    assert answer.status_code == 504
    assert answer.json() == {"type": "error", "error": {"type": "timeout_error", "message": late}}
    answer = stuck.post("/api/chat", **asked)
    assert answer.status_code == 504
    assert answer.json() == {"error": late}
