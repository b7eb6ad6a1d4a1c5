"""OpenAI's Agents SDK: a loop of calls and results, on Responses and on chat."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import LIMIT_OF_JSON, WEATHER, City

agents = pytest.importorskip("agents", reason="openai-agents is not installed: make clients")


@pytest.mark.parametrize("kind", ["OpenAIResponsesModel", "OpenAIChatCompletionsModel"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_tool_is_called_and_its_result_answered(both: Both, kind: str, stream: bool) -> None:
    agents.set_tracing_disabled(True)

    async def run(url: str) -> Any:
        from openai import AsyncOpenAI

        called = []

        @agents.function_tool  # type: ignore[untyped-decorator]
        def get_weather(city: City) -> str:
            """The weather of a city."""
            called.append(city)
            return "sunny, 20 degrees"

        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
            agent = agents.Agent(
                name="forecaster",
                instructions="Answer briefly.",
                tools=[get_weather],
                model=getattr(agents, kind)(model=MODEL, openai_client=client),
                model_settings=agents.ModelSettings(
                    temperature=0, max_tokens=LIMIT_OF_JSON, tool_choice="required", parallel_tool_calls=False
                ),
            )
            if stream:
                result = agents.Runner.run_streamed(agent, WEATHER, max_turns=4)
                events = [event.type async for event in result.stream_events()]
                assert "raw_response_event" in events
            else:
                result = await agents.Runner.run(agent, WEATHER, max_turns=4)
        return called, result.final_output

    called, answer = both.same(lambda url: asyncio.run(run(url)))
    assert called[0] in ("Paris", "London", "Taipei")
    assert answer is not None
