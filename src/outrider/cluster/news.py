"""What the ingress sends to a replica, and what it hears of it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from outrider.engine.generation import EngineStopped, QueueFull, TextPrompt
from outrider.errors import ConfigError, RequestError
from outrider.formats.format import Floats
from outrider.metrics import Metric
from outrider.outputs import Increment, RequestOutput
from outrider.params import SamplingParams
from outrider.serving.model import ServedModel
from outrider.serving.ollama.card import Card


@dataclass(frozen=True)
class Described:
    """What a replica serves, and what tells it apart from other models: `outrider.cluster.identity`."""

    model: ServedModel
    identity: str


class OtherModel(EngineStopped):
    """The model that a request was read for is not served any more. Another one would go on with other tokens
    than it began with."""


@dataclass(frozen=True)
class ReplicaCall:
    """One prompt and how it is sampled, seed included. prefix: digests of its blocks, from the first on."""

    prompt: TextPrompt
    params: SamplingParams
    priority: int
    prefix: tuple[bytes, ...]


@dataclass(frozen=True)
class Taken:
    """The engine has queued the request. replica: the name of who answers."""

    replica: str


@dataclass(frozen=True)
class NotServed:
    """The request cannot be served, here or elsewhere."""

    error: RequestError | ConfigError | OtherModel | QueueFull


ReplicaNews = Taken | Increment | RequestOutput | NotServed
"""The increments come in order, and the whole output last."""


class ReplicaLost(Exception):
    """A replica has died, or cannot be reached, before it had told all."""


class Replicas(Protocol):
    """The replicas of one model. On Ray: `outrider.cluster.handle.RayReplicas`."""

    def send(self, call: ReplicaCall) -> AsyncGenerator[ReplicaNews, None]:
        """Have one of them serve the call. Closing the generator gives the call up. Raises ReplicaLost."""

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        """What one of them makes of a text. Raises ReplicaLost, and what `AsyncEngine.embed` does."""

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        """What each of them has counted, with its name among the labels."""

    async def card(self, name: str, modified: str) -> Card:
        """What Ollama's clients are told of the model."""
