"""From a request of a chat to what the engine is asked, and to how its answer is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from outrider.engine.generation import TextPrompt
from outrider.llm import LLM
from outrider.params import SamplingParams
from outrider.serving.answers import plain_text
from outrider.serving.parsing.events import Parser
from outrider.serving.prompts import Prompts
from outrider.serving.requests import ChatRequest
from outrider.serving.settings import ServerConfig
from outrider.serving.tools import tool_use


@dataclass(frozen=True)
class Turn:
    """What the engine is asked for an assistant's next message, and what reads the sequences of it."""

    prompt: TextPrompt
    params: SamplingParams
    parser: Callable[[int, bool], Parser] = plain_text


class Turns:
    """Makes the turns of one model."""

    def __init__(self, llm: LLM, config: ServerConfig, prompts: Prompts) -> None:
        self._prompts = prompts

    async def of(self, body: ChatRequest, request_id: str) -> Turn:
        """Raises what a request is refused with."""
        params = body.sampling_params()
        tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)
        return Turn(await self._prompts.of_chat(body.messages), params)
