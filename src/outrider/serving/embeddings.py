"""The route /v1/embeddings."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import Field
from typing_extensions import TypedDict

from outrider.errors import ConfigError
from outrider.formats.format import Floats
from outrider.serving.bodies import Body, Text
from outrider.serving.errors import ErrorBody, refusals
from outrider.serving.requests import MAX_USER, Prompts, num_prompts
from outrider.serving.service import Service

MOST_TEXTS = 2048  # of one request, as OpenAI's


class EmbeddingRequest(Body):
    """input: a text, its token ids, or a list of either."""

    model: Text | None = None
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    """'base64': of the numbers as float32, little-endian."""
    dimensions: Annotated[int, Field(ge=1)] | None = None
    """The first so many numbers, for models that were trained for it (Kusupati et al., 2022, Matryoshka
    Representation Learning); scaled to length 1 again."""
    add_special_tokens: bool | None = None
    """Whether a text gets the tokens that the model expects around it; true."""
    user: Annotated[Text, Field(max_length=MAX_USER)] | None = None
    """Is written to the log."""

    @property
    def num_inputs(self) -> int:
        return num_prompts(self.input)


class Embedding(TypedDict):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def routes(service: Service) -> APIRouter:
    router = APIRouter(tags=["embeddings"])
    responses: dict[int | str, dict[str, Any]] = {200: {"model": EmbeddingList}, **refusals(ErrorBody)}

    @router.post("/v1/embeddings", responses=responses, response_class=Response)
    async def create_embeddings(body: EmbeddingRequest, request: Request) -> Response:
        """The embedding of a text, or of several."""
        service.check_model(body.model)
        size = service.model.embedding_size
        if body.dimensions is not None and body.dimensions > size:
            raise ConfigError(
                f"dimensions = {body.dimensions}: the model's embeddings have {size}", "dimensions"
            )
        if body.num_inputs > MOST_TEXTS:
            raise ConfigError(f"input has {body.num_inputs} texts, and can have {MOST_TEXTS}", "input")
        prompts = await service.prompts.of_input(
            body.input, add_special_tokens=body.add_special_tokens is not False
        )
        count = sum(len(prompt.token_ids) for prompt in prompts)
        request.state.log |= {"prompt_tokens": count} | ({} if body.user is None else {"user": body.user})
        data: list[Embedding] = []
        async with request.state.deadline.kept():
            for index, prompt in enumerate(prompts):
                vector = _shortened(await service.engine.embed(prompt.token_ids), body.dimensions)
                told = _base64(vector) if body.encoding_format == "base64" else vector.tolist()
                data.append({"object": "embedding", "index": index, "embedding": told})
        form: EmbeddingList = {
            "object": "list",
            "data": data,
            "model": service.config.model_name,
            "usage": {"prompt_tokens": count, "total_tokens": count},
        }
        return JSONResponse(form)

    return router


def _shortened(vector: Floats, dimensions: int | None) -> Floats:
    if dimensions is None:
        return vector
    first = vector[:dimensions]
    length = float(np.linalg.norm(first))
    return first / np.float32(length) if length else first


def _base64(vector: Floats) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
