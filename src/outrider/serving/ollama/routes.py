"""The routes of Ollama's API. There is one model, and it is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from outrider.serving.errors import ApiError, OllamaErrorBody, generated, refusals
from outrider.serving.framing import LINES
from outrider.serving.ollama.answer import ChatLines, GenerateLines, moment
from outrider.serving.ollama.bodies import Asked, ChatBody, GenerateBody, ShowBody
from outrider.serving.ollama.card import API_VERSION, Card
from outrider.serving.ollama.convert import chat_of, generate_of
from outrider.serving.service import Service

GENERATED = generated(OllamaErrorBody, LINES.media_type)
LATEST = ":latest"
"""What Ollama adds to a name without a tag."""


class OfAnyType(APIRoute):
    """Takes a body for JSON whatever its content type is, as Ollama does: its clients seldom tell."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def as_json(request: Request) -> Response:
            others = [(name, value) for name, value in request.scope["headers"] if name != b"content-type"]
            scope = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
            return await handle(Request(scope, request.receive))

        return as_json


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["ollama"], route_class=OfAnyType)
    name = service.config.model_name
    created = moment(service.created)
    reading: list[asyncio.Future[Card]] = []

    async def card() -> Card:
        """Read once, when it is first asked for."""
        if not reading:
            reading.append(asyncio.ensure_future(service.engine.card(name, created)))
        return await asyncio.shield(reading[0])

    def check(asked: str | None) -> None:
        """Raises ApiError for another model."""
        try:
            service.check_model(asked)
        except ApiError:
            service.check_model((asked or "").removesuffix(LATEST))

    def loaded(body: Asked, empty: dict[str, Any]) -> JSONResponse:
        """The answer to who only wants the model to be loaded, or not to be any more."""
        reason = "unload" if body.keep_alive in (0, "0", "0s") else "load"
        head = {"model": name, "created_at": created}
        return JSONResponse({**head, **empty, "done": True, "done_reason": reason})

    @router.post("/api/chat", responses=GENERATED, response_class=Response)
    async def chat(body: ChatBody, request: Request) -> Response:
        """Answer a conversation, in Ollama's form."""
        check(body.model)
        if not body.messages:
            return loaded(body, {"message": {"role": "assistant", "content": ""}})
        return await service.chat(request, chat_of(body), ChatLines)

    @router.post("/api/generate", responses=GENERATED, response_class=Response)
    async def generate(body: GenerateBody, request: Request) -> Response:
        """Answer a prompt; with `raw`, go on with it."""
        check(body.model)
        if not body.prompt:
            return loaded(body, {"response": ""})
        asked = generate_of(body)
        if not body.raw:
            return await service.chat(request, asked, GenerateLines)
        service.prompts.check_length(body.prompt)
        params = asked.sampling_params(service.sampling_defaults)
        prompts = await service.prompts.of_texts([body.prompt])
        answer = GenerateLines(service.asked(request, asked, prompts, params))
        return await service.serve(request, asked, prompts, params, answer)

    @router.get("/api/tags", response_class=JSONResponse)
    async def tags() -> JSONResponse:
        """The model, in a list of one."""
        return JSONResponse({"models": [(await card()).listed()]})

    @router.get("/api/ps", response_class=JSONResponse)
    async def running() -> JSONResponse:
        """The model, which is always loaded."""
        return JSONResponse({"models": [(await card()).running()]})

    @router.post("/api/show", responses=refusals(OllamaErrorBody), response_class=JSONResponse)
    async def show(body: ShowBody) -> JSONResponse:
        """What is known of the model."""
        check(body.model or body.name)
        return JSONResponse((await card()).shown())

    @router.get("/api/version", response_class=JSONResponse)
    async def version() -> JSONResponse:
        """The version of Ollama whose API this is."""
        return JSONResponse({"version": API_VERSION})

    return router
