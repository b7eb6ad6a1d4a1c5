"""The routes that generate: /v1/completions and /v1/chat/completions."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from outrider.serving.chat_answers import ChatAnswer
from outrider.serving.completion_answers import CompletionAnswer, echoed
from outrider.serving.errors import ErrorBody, refusals
from outrider.serving.replies import ChatCompletion, Completion
from outrider.serving.requests import ChatRequest, CompletionRequest
from outrider.serving.service import Service


def _responses(model: Any) -> dict[int | str, dict[str, Any]]:
    """What a generating route answers with, for the OpenAPI description."""
    event = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    stream = {"text/event-stream": {"schema": event}}
    return {
        200: {"model": model, "description": "The answer; with `stream`, events.", "content": stream},
        **refusals(ErrorBody),
    }


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["generation"])

    @router.post("/v1/completions", responses=_responses(Completion), response_class=Response)
    async def create_completion(body: CompletionRequest, request: Request) -> Response:
        """Complete a prompt, or several."""
        service.check_model(body.model)
        params = body.sampling_params(service.sampling_defaults)
        # Before they are tokenized: a million short prompts are a small body, and ten seconds' work.
        service.engine.check_fits(body.num_prompts * params.n)
        prompts = await service.prompts.of_input(
            body.prompt, add_special_tokens=body.add_special_tokens is not False
        )
        texts = await asyncio.to_thread(echoed, prompts, service.prompts.text_of) if body.echo else []
        asked = service.asked(request, body, prompts, params)
        answer = CompletionAnswer(asked, texts=texts, decode=service.prompts.pieces_of)
        return await service.serve(request, body, prompts, params, answer)

    @router.post("/v1/chat/completions", responses=_responses(ChatCompletion), response_class=Response)
    async def create_chat_completion(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation."""
        return await service.chat(request, body, ChatAnswer)

    return router
