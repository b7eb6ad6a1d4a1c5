"""A model as an application of Ray Serve: engines in actors, and an ingress with all routes of the server."""

from __future__ import annotations

import math
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from outrider.cluster import DIRECT
from outrider.cluster.config import ClusterConfig
from outrider.cluster.handle import service_of
from outrider.cluster.headers import WithoutRequestId
from outrider.cluster.identity import identity_of
from outrider.cluster.news import Described, NotServed, OtherModel, ReplicaCall, ReplicaNews, Taken
from outrider.cluster.router import MODEL, PrefixRouter
from outrider.config import resolve
from outrider.engine.generation import EngineStopped, QueueFull
from outrider.errors import ConfigError, RequestError
from outrider.formats.format import Floats
from outrider.llm import LLM
from outrider.metrics import Metric
from outrider.serving.app import build_app
from outrider.serving.model import LocalEngine, ServedModel
from outrider.serving.ollama.card import Card
from outrider.serving.settings import ServerConfig

HEALTH_SECONDS = 5.0
RUNTIME = {"env_vars": {name: os.environ[name] for name in DIRECT}}


class Replica:
    """One engine, in an actor. model: of a call, the identity of the one that its prompt was read for."""

    def __init__(self, model: str, options: Mapping[str, Any], version: str) -> None:
        self._llm = LLM(model, **options)
        self._version = version
        self._model = identity_of(self._llm)
        self._name = str(serve.get_replica_context().replica_id.unique_id)
        self._engine = LocalEngine(self._llm, queue=math.inf)  # the ingress says how many may wait
        self._engine.start()  # for the event loop that Serve calls all of this in

    def record_replica_metadata(self) -> dict[str, str]:
        """What routers know of this replica."""
        return {MODEL: self._model}

    async def check_health(self) -> None:
        """Raise EngineStopped where requests are not taken any more: Serve then starts another replica."""
        if self._engine.stopped is not None:
            raise EngineStopped(self._engine.stopped)

    async def describe(self, version: str) -> Described | None:
        """What is served here; None where it was deployed by another configuration."""
        return Described(ServedModel.of(self._llm), self._model) if version == self._version else None

    async def generate(self, call: ReplicaCall, *, model: str) -> AsyncGenerator[ReplicaNews, None]:
        """Serve a call. What is not the request's fault is raised: the call is then sent elsewhere."""
        try:
            self._check(model)
            generation = self._engine.generate([call.prompt], call.params, priority=call.priority)
            async with generation:
                yield Taken(self._name)
                async for _, increment in generation:
                    yield increment
                yield generation.outputs[0]
        except (RequestError, ConfigError, OtherModel) as error:
            yield NotServed(error)

    async def embed(self, token_ids: Sequence[int], *, model: str) -> Floats | NotServed:
        """An embedding, or why there is none here or elsewhere."""
        try:
            self._check(model)
            return await self._engine.embed(token_ids)
        except (RequestError, ConfigError, OtherModel, QueueFull) as error:
            return NotServed(error)

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        return await self._engine.metrics({**labels, "replica": self._name})

    async def card(self, name: str, modified: str, *, model: str) -> Card:
        self._check(model)
        return await self._engine.card(name, modified)

    def _check(self, model: str) -> None:
        """Raise OtherModel for a call that was read for another one, which would go on with other tokens."""
        if model != self._model:
            raise OtherModel("the model has been replaced by another one; ask again")


@serve.ingress()
class Ingress:
    """The routes of the server, in front of the replicas."""

    def __init__(
        self, replicas: DeploymentHandle[Any], config: ServerConfig, version: str, most: int
    ) -> None:
        self._replicas = replicas
        self._config = config
        self._version = version
        self._most = most

    async def __serve_build_asgi_app__(self) -> Any:
        service = await service_of(self._replicas, self._config, version=self._version, most=self._most)
        return WithoutRequestId(build_app(service))


def app(arguments: Mapping[str, Any]) -> Application:
    """The application, for `serve run` and for a RayService. arguments: the fields of ClusterConfig.

    Raises ConfigError for what they cannot be.
    """
    config = ClusterConfig(**arguments)
    server = config.server_config()
    ingress = serve.deployment(
        Ingress,
        name="Ingress",
        num_replicas=config.ingresses,
        max_ongoing_requests=server.max_connections,
        ray_actor_options={"num_cpus": 0, "runtime_env": RUNTIME},
        graceful_shutdown_timeout_s=server.shutdown_timeout,
        max_surge_percent=100,  # the old one serves until there is a replica of the new configuration
    )
    return ingress.bind(replicas_of(config), server, config.version, config.most)


def replicas_of(config: ClusterConfig, router: RequestRouterConfig | None = None) -> Application:
    """The engines alone. router: how they are chosen; None: by `PrefixRouter`."""
    server = config.server_config()
    engine = resolve(config.model, **config.engine_options)
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
            target_ongoing_requests=config.requests_per_replica or engine.max_num_seqs,
        )
        if elastic
        else None,
        max_ongoing_requests=engine.max_num_seqs + server.max_queue,
        ray_actor_options={"num_cpus": config.cores, "num_gpus": config.gpus, "runtime_env": RUNTIME},
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=server.shutdown_timeout,
        request_router_config=router,
    )
    return replicas.bind(config.model, config.engine_options, config.version)
