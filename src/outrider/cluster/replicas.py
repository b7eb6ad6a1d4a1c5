"""A model as an application of Ray Serve: engines in actors, and an ingress with all routes of the server."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from outrider.cluster.config import ClusterConfig
from outrider.cluster.engine import ReplicatedEngine
from outrider.cluster.headers import WithoutRequestId
from outrider.cluster.news import NotServed, ReplicaCall, ReplicaLost, ReplicaNews, Taken
from outrider.cluster.router import PrefixRouter
from outrider.config import resolve
from outrider.engine.generation import EngineStopped, QueueFull
from outrider.errors import ConfigError, RequestError
from outrider.formats.format import Floats
from outrider.llm import LLM
from outrider.metrics import Metric
from outrider.serving.app import build_app
from outrider.serving.model import LocalEngine, ServedModel
from outrider.serving.ollama.card import Card
from outrider.serving.service import Service
from outrider.serving.settings import ServerConfig

METRICS_SECONDS = 5.0
"""That a replica has to tell what it counted."""
HEALTH_SECONDS = 5.0


class Replica:
    """One engine, in an actor."""

    def __init__(self, model: str, options: Mapping[str, Any]) -> None:
        self._llm = LLM(model, **options)
        self._name = str(serve.get_replica_context().replica_id.unique_id)
        self._engine = LocalEngine(self._llm, queue=math.inf)  # the ingress says how many may wait
        self._engine.start()  # for the event loop that Serve calls all of this in

    async def check_health(self) -> None:
        """Raise EngineStopped where requests are not taken any more: Serve then starts another replica."""
        if self._engine.stopped is not None:
            raise EngineStopped(self._engine.stopped)

    async def describe(self) -> ServedModel:
        return ServedModel.of(self._llm)

    async def generate(self, call: ReplicaCall) -> AsyncGenerator[ReplicaNews, None]:
        """Serve a call. What is not the request's fault is raised: the call is then sent elsewhere."""
        try:
            generation = self._engine.generate([call.prompt], call.params, priority=call.priority)
            async with generation:
                yield Taken(self._name)
                async for _, increment in generation:
                    yield increment
                yield generation.outputs[0]
        except (RequestError, ConfigError) as error:
            yield NotServed(error)

    async def embed(self, token_ids: Sequence[int]) -> Floats | RequestError | ConfigError | QueueFull:
        """An embedding, or why there is none here or elsewhere."""
        try:
            return await self._engine.embed(token_ids)
        except (RequestError, ConfigError, QueueFull) as error:
            return error

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        return await self._engine.metrics({**labels, "replica": self._name})

    async def card(self, name: str, modified: str) -> Card:
        return await self._engine.card(name, modified)


@serve.ingress()
class Ingress:
    """The routes of the server, in front of the replicas."""

    def __init__(self, replicas: DeploymentHandle[Any], config: ServerConfig, most: int) -> None:
        self._replicas = replicas
        self._config = config
        self._most = most

    async def __serve_build_asgi_app__(self) -> Any:
        model: ServedModel = await self._replicas.describe.remote()
        capacity = self._most * model.max_num_seqs + self._config.max_queue
        engine = ReplicatedEngine(RayReplicas(self._replicas), model, capacity=capacity)
        return WithoutRequestId(build_app(Service(model, engine, self._config)))


class RayReplicas:
    """The replicas behind a handle of Serve, which says when one is lost."""

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self._handle = handle
        self._streams = handle.options(method_name="generate", stream=True)

    async def send(self, call: ReplicaCall) -> AsyncGenerator[ReplicaNews, None]:
        response = self._streams.remote(call)
        try:
            async for news in response:
                yield news
        except Exception as error:  # Ray's, gRPC's, or what a replica could not confine
            raise ReplicaLost(_line(error)) from error
        finally:
            response.cancel()

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        try:
            found = await self._handle.embed.remote(token_ids)
        except Exception as error:
            raise ReplicaLost(_line(error)) from error
        if isinstance(found, Exception):
            raise found
        vector: Floats = found
        return vector

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        """The figures of those that are there. One that dies meanwhile is left out."""
        asked = self._handle.broadcast("metrics", labels)
        told = await asked.results_async(timeout_s=METRICS_SECONDS, return_exceptions=True)
        return [metric for each in told if isinstance(each, list) for metric in each]

    async def card(self, name: str, modified: str) -> Card:
        card: Card = await self._handle.card.remote(name, modified)
        return card


def app(arguments: Mapping[str, Any]) -> Application:
    """The application, for `serve run` and for a RayService. arguments: the fields of ClusterConfig.

    Raises ConfigError for what they cannot be.
    """
    return application(ClusterConfig(**arguments))


def application(config: ClusterConfig, router: RequestRouterConfig | None = None) -> Application:
    """The application of a configuration. router: how replicas are chosen; None: by `PrefixRouter`."""
    server = config.server_config()
    engine = resolve(config.model, **config.engine_options)
    per_replica = config.requests_per_replica or engine.max_num_seqs
    if router is None:
        router = RequestRouterConfig(request_router_class=PrefixRouter)
    elastic = config.most > config.replicas
    replicas = serve.deployment(
        Replica,
        name="Replica",
        num_replicas=None if elastic else config.replicas,
        autoscaling_config=AutoscalingConfig(
            min_replicas=config.replicas,
            max_replicas=config.most,
            initial_replicas=config.replicas,
            target_ongoing_requests=per_replica,
        )
        if elastic
        else None,
        max_ongoing_requests=engine.max_num_seqs + server.max_queue,
        ray_actor_options={"num_cpus": config.cores, "num_gpus": config.gpus},
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=server.shutdown_timeout,
        request_router_config=router,
    )
    ingress = serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=config.ingresses,
        max_ongoing_requests=server.max_connections,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=server.shutdown_timeout,
    )
    return ingress.bind(replicas.bind(config.model, config.engine_options), server, config.most)


def _line(error: Exception) -> str:
    """The end of what may be a traceback from elsewhere."""
    lines = str(error).strip().splitlines()
    return lines[-1] if lines else type(error).__name__
