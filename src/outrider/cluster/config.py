"""How a model is served by replicas."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated, Any, Self

from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from outrider.config import OWN_ENGINE
from outrider.errors import ConfigError
from outrider.serving import API_KEY
from outrider.serving.settings import ServerConfig, public_name
from outrider.validation import Strict


class ClusterConfig(Strict):
    """The arguments of the application `outrider.cluster.replicas:app`."""

    model: Annotated[str, Field(min_length=1)]
    """As `LLM` has it; every machine has to find it."""
    replicas: PositiveInt = 1
    """How many there are, or, with `max_replicas`, at least."""
    max_replicas: PositiveInt | None = None
    """How many there may be where requests queue up; None: always `replicas`."""
    requests_per_replica: Annotated[float, Field(gt=0)] | None = None
    """Requests that a replica should have, running and waiting: with more, another one is started, up to
    `max_replicas`. None: as many as it runs at a time (`max_num_seqs`)."""
    cores: PositiveInt = 1
    """CPU cores of a replica: what Ray reserves, and the threads of its kernels."""
    gpus: NonNegativeFloat = 0
    """GPUs of a replica."""
    ingresses: PositiveInt = 1
    """Processes that read requests and tell answers."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of `LLM`."""
    server: dict[str, Any] = Field(default_factory=dict)
    """Options of `ServerConfig`. Without `model_name`: the name of the model's file or folder; without
    `api_keys`: what `API_KEY` in the environment says where the application is built."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        engine = self.options.get("engine", OWN_ENGINE)
        if engine != OWN_ENGINE:
            raise ValueError(
                f"engine = {engine!r} with replicas: vLLM spreads a model by itself, and cannot go on with a "
                "stream that broke off elsewhere; leave replicas out"
            )
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(
                f"max_replicas = {self.max_replicas} is less than replicas = {self.replicas}; raise it, or "
                "leave it out"
            )
        if self.requests_per_replica is not None and self.max_replicas is None:
            raise ValueError(
                "requests_per_replica says when more replicas are started; give max_replicas, or leave it out"
            )
        shared = self.options.get("suffix_file")
        if shared is not None and self.most > 1:
            raise ValueError(f"suffix_file = {shared!r} cannot be written by several replicas; leave it out")
        return self

    @property
    def most(self) -> int:
        """Replicas that there may be."""
        return self.max_replicas or self.replicas

    @property
    def engine_options(self) -> dict[str, Any]:
        """What each replica's `LLM` is given."""
        threads = {} if self.gpus else {"num_threads": self.cores}
        return {**threads, **self.options}

    @property
    def version(self) -> str:
        """Tells apart configurations whose replicas differ."""
        given = json.dumps([self.model, self.engine_options], sort_keys=True, default=str)
        return sha256(given.encode()).hexdigest()

    def server_config(self, environment: Mapping[str, str] = os.environ) -> ServerConfig:
        """How the ingress serves. Its clients call it whatever Ray's proxies are called, unless `server` says
        more.

        Raises ConfigError for what it cannot be.
        """
        given = dict(self.server)
        if given.get("learning") is not None:
            raise ConfigError("learning: each replica would learn by itself; leave it out", "learning")
        if key := environment.get(API_KEY):
            given.setdefault("api_keys", [key])
        return ServerConfig(**{"host": "0.0.0.0", "model_name": public_name(self.model), **given})
