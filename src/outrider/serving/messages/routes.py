"""The routes of Anthropic's API."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from outrider.serving.conversion import as_chat
from outrider.serving.errors import AnthropicErrorBody, generated, refusals
from outrider.serving.framing import NAMED
from outrider.serving.messages.answer import MessagesAnswer
from outrider.serving.messages.bodies import CountRequest, MessagesRequest
from outrider.serving.messages.convert import chat_of, prompt_fields
from outrider.serving.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["messages"])

    @router.post(
        "/v1/messages", responses=generated(AnthropicErrorBody, NAMED.media_type), response_class=Response
    )
    async def create_message(body: MessagesRequest, request: Request) -> Response:
        """Answer a conversation, in Anthropic's form."""
        return await service.chat(request, chat_of(body), MessagesAnswer)

    @router.post(
        "/v1/messages/count_tokens", responses=refusals(AnthropicErrorBody), response_class=JSONResponse
    )
    async def count_tokens(body: CountRequest, request: Request) -> JSONResponse:
        """The length of the prompt that such a message has."""
        chat = as_chat(prompt_fields(body))
        service.check_model(chat.model)
        turn = await service.turns.of(chat, request.state.request_id)
        return JSONResponse({"input_tokens": len(turn.prompt.token_ids)})

    return router
