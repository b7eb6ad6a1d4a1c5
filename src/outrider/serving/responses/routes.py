"""The routes of OpenAI's Responses API."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from outrider.serving.conversion import as_chat
from outrider.serving.errors import ErrorBody, generated, refusals
from outrider.serving.framing import NAMED
from outrider.serving.responses.answer import ResponsesAnswer
from outrider.serving.responses.bodies import CountRequest, Item, Prompted, ResponsesRequest
from outrider.serving.responses.convert import chat_of, items_of, prompt_fields
from outrider.serving.responses.store import ResponseStore
from outrider.serving.service import Service


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["responses"])
    store = ResponseStore()

    def conversation(body: Prompted) -> list[Item]:
        """What the body goes on with, and what it brings. Raises ApiError."""
        earlier: tuple[Item, ...] = ()
        if body.previous_response_id is not None:
            earlier = store.get(body.previous_response_id, "previous_response_id").conversation
        return [*earlier, *store.resolved(items_of(body))]

    @router.post("/v1/responses", responses=generated(ErrorBody, NAMED.media_type), response_class=Response)
    async def create_response(body: ResponsesRequest, request: Request) -> Response:
        """Answer items, or go on from an earlier response."""
        items = conversation(body)
        keep = partial(store.keep, conversation=items) if body.store is not False else None
        answer = partial(ResponsesAnswer, given=body, keep=keep)
        return await service.chat(request, chat_of(body, items), answer)

    @router.post("/v1/responses/input_tokens", responses=refusals(ErrorBody), response_class=JSONResponse)
    async def count_tokens(body: CountRequest, request: Request) -> JSONResponse:
        """The length of the prompt that such a response has."""
        chat = as_chat(prompt_fields(body, conversation(body)))
        service.check_model(chat.model)
        turn = await service.turns.of(chat, request.state.request_id)
        return JSONResponse({"object": "response.input_tokens", "input_tokens": len(turn.prompt.token_ids)})

    @router.get("/v1/responses/{response_id}", responses=refusals(ErrorBody), response_class=JSONResponse)
    async def retrieve_response(response_id: str) -> JSONResponse:
        """A response that is kept."""
        return JSONResponse(store.get(response_id).response)

    @router.delete("/v1/responses/{response_id}", responses=refusals(ErrorBody), response_class=JSONResponse)
    async def delete_response(response_id: str) -> JSONResponse:
        """Forget a response."""
        store.delete(response_id)
        return JSONResponse({"id": response_id, "object": "response", "deleted": True})

    return router
