"""The routes that tell about the model and the server, and those of its tokenizer."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from outrider import __version__
from outrider.engine.generation import TextPrompt
from outrider.serving.errors import ErrorBody
from outrider.serving.replies import Detokenized, Health, ModelCard, ModelList, Tokenized, Version
from outrider.serving.requests import DetokenizeRequest, TokenizeRequest
from outrider.serving.service import Service

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ErrorBody}}
REFUSED: dict[int | str, dict[str, Any]] = {400: {"model": ErrorBody}, 413: {"model": ErrorBody}, **UNKNOWN}


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["information"])

    def card() -> ModelCard:
        return {
            "id": service.config.model_name,
            "object": "model",
            "created": service.created,
            "owned_by": "outrider",
            "max_model_len": service.model.max_model_len,
            "default_sampling_params": dict(service.sampling_defaults),
        }

    @router.get("/v1/models", response_model=ModelList)
    async def list_models() -> ModelList:
        """The model, in a list of one."""
        return {"object": "list", "data": [card()]}

    @router.get("/v1/models/{model:path}", response_model=ModelCard, responses=UNKNOWN)
    async def retrieve_model(model: str) -> ModelCard:
        """The model."""
        service.check_model(model)
        return card()

    @router.post("/tokenize", response_model=Tokenized, response_model_exclude_unset=True, responses=REFUSED)
    async def tokenize(body: TokenizeRequest) -> Tokenized:
        """The tokens of a text, or of a conversation as the model's template lays it out."""
        service.check_model(body.model)
        prompt = await _prompt(service, body)
        form: Tokenized = {
            "count": len(prompt.token_ids),
            "max_model_len": service.model.max_model_len,
            "tokens": list(prompt.token_ids),
        }
        if body.return_token_strs:
            form["token_strs"] = await asyncio.to_thread(service.prompts.names_of, prompt.token_ids)
        return form

    @router.post("/detokenize", response_model=Detokenized, responses=REFUSED)
    async def detokenize(body: DetokenizeRequest) -> Detokenized:
        """The text of tokens, special ones included."""
        service.check_model(body.model)
        return {"prompt": await asyncio.to_thread(service.prompts.text_of, body.tokens)}

    @router.get("/health", response_model=Health, responses={503: {"model": Health}})
    async def health() -> Response:
        """Whether requests are taken. A server that shuts down says no, so that nobody sends it any more."""
        stopped = service.engine.stopped
        return JSONResponse({"status": stopped or "ok"}, 200 if stopped is None else 503)

    @router.get("/version", response_model=Version)
    async def version() -> Version:
        """Of Outrider."""
        return {"version": __version__}

    @router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(await service.metrics.text(), media_type=CONTENT_TYPE_LATEST)

    return router


async def _prompt(service: Service, body: TokenizeRequest) -> TextPrompt:
    body.check()
    if body.messages is not None:
        return await service.turns.lay_out(body, add_generation_prompt=body.add_generation_prompt)
    texts = [body.prompt or ""]
    (prompt,) = await service.prompts.of_texts(texts, add_special_tokens=body.add_special_tokens)
    return prompt
