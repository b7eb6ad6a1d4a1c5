"""LiteLLM, which speaks to the server as OpenAI's, as Anthropic's and as Ollama's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import ASK_WEATHER, LIMIT, LIMIT_OF_JSON, MESSAGES, TOOL, arguments_fit

PROVIDERS = {"openai": "/v1", "hosted_vllm": "/v1", "anthropic": "", "ollama_chat": ""}


@pytest.fixture(scope="module")
def litellm() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # or it asks the network
        return pytest.importorskip("litellm", reason="litellm is not installed: make clients")


@pytest.mark.parametrize("provider", PROVIDERS)
def test_completion(both: Both, litellm: Any, provider: str) -> None:
    def ask(url: str) -> Any:
        asked = {
            "model": f"{provider}/{MODEL}", "api_base": url + PROVIDERS[provider], "api_key": "none",
            "messages": MESSAGES, "temperature": 0, "max_tokens": LIMIT,
        }  # fmt: skip
        whole = litellm.completion(**asked).choices[0]
        chunks = litellm.completion(**asked, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
        return whole.message.content, whole.finish_reason

    assert both.same(ask)[0]


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm", "anthropic"])
@pytest.mark.parametrize("stream", [False, True])
def test_required_tools(both: Both, litellm: Any, provider: str, stream: bool) -> None:
    def ask(url: str) -> Any:
        answer = litellm.completion(
            model=f"{provider}/{MODEL}", api_base=url + PROVIDERS[provider], api_key="none",
            messages=ASK_WEATHER, tools=[TOOL], tool_choice="required", parallel_tool_calls=False,
            temperature=0, max_tokens=LIMIT_OF_JSON, stream=stream,
        )  # fmt: skip
        if stream:
            answer = litellm.stream_chunk_builder(list(answer))
        return [
            (call.function.name, json.loads(call.function.arguments))
            for call in answer.choices[0].message.tool_calls
        ]

    (call,) = both.same(ask)
    assert arguments_fit(*call)


def test_responses(both: Both, litellm: Any) -> None:
    def ask(url: str) -> Any:
        response = litellm.responses(
            model=f"openai/{MODEL}", api_base=f"{url}/v1", api_key="none", input="Say hello.", temperature=0,
            max_output_tokens=LIMIT,
        )  # fmt: skip
        return response.output_text

    assert both.same(ask)
