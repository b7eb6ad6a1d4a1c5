"""The replicas behind a handle of Ray Serve, which says when one is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from ray.serve.exceptions import DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from outrider.cluster.engine import ReplicatedEngine
from outrider.cluster.news import Described, NotServed, ReplicaCall, ReplicaLost, ReplicaNews
from outrider.formats.format import Floats
from outrider.metrics import Metric
from outrider.serving.ollama.card import Card
from outrider.serving.service import Service
from outrider.serving.settings import ServerConfig

TELL_SECONDS = 5.0
"""That a replica has to tell what it is or has counted."""
SEEK_SECONDS = 0.2
"""Between questions for a replica that there is not yet."""


async def service_of(
    handle: DeploymentHandle[Any], config: ServerConfig, *, version: str, most: int
) -> Service:
    """What the routes serve: the model of replicas that were deployed as `version`, once there is one. During
    a rolling update there are others, whose tokenizer may be another.

    most: replicas that there may be.
    """
    while (described := await _describe(handle, version)) is None:
        await asyncio.sleep(SEEK_SECONDS)
    model = described.model
    capacity = most * model.max_num_seqs + config.max_queue
    engine = ReplicatedEngine(RayReplicas(handle, described.identity), model, capacity=capacity)
    return Service(model, engine, config)


async def _describe(handle: DeploymentHandle[Any], version: str) -> Described | None:
    try:
        told = await _all(handle, "describe", version)
    except TimeoutError:  # one is busy; it is asked again
        return None
    return next((each for each in told if isinstance(each, Described)), None)


async def _all(handle: DeploymentHandle[Any], method: str, *arguments: Any) -> list[Any]:
    """What each replica answers; one that dies meanwhile, with an error. Raises TimeoutError."""
    asked = handle.broadcast(method, *arguments)
    try:
        told: list[Any] = await asked.results_async(timeout_s=TELL_SECONDS, return_exceptions=True)
    except DeploymentUnavailableError:
        return []
    return told


class RayReplicas:
    """The replicas that have a model. identity: of the model; the others refuse its calls."""

    def __init__(self, handle: DeploymentHandle[Any], identity: str) -> None:
        self._handle = handle
        self._streams = handle.options(
            method_name="generate",
            stream=True,
            request_serialization="pickle",  # Ray's own takes longer, which every token would pay
            response_serialization="pickle",
        )
        self._identity = identity

    async def send(self, call: ReplicaCall) -> AsyncGenerator[ReplicaNews, None]:
        response = self._streams.remote(call, model=self._identity)
        try:
            async for news in response:
                yield news
        except Exception as error:  # Ray's, gRPC's, or what a replica could not confine
            raise ReplicaLost(last_line(error)) from error
        finally:
            response.cancel()

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        try:
            found = await self._handle.embed.remote(token_ids, model=self._identity)
        except Exception as error:
            raise ReplicaLost(last_line(error)) from error
        if isinstance(found, NotServed):
            raise found.error
        vector: Floats = found
        return vector

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        """The figures of those that are there."""
        told = await _all(self._handle, "metrics", labels)
        return [metric for each in told if isinstance(each, list) for metric in each]

    async def card(self, name: str, modified: str) -> Card:
        card: Card = await self._handle.card.remote(name, modified, model=self._identity)
        return card


def last_line(error: object) -> str:
    """The last line that says something, of what may be a traceback from elsewhere."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__
