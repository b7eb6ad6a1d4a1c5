"""What the routes know of a model, and what they ask of the engine that computes it, wherever that is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from outrider.adapting.adapter import Adapter
from outrider.adapting.attach import adapter_of
from outrider.adapting.settings import AdaptConfig
from outrider.engine.async_engine import AsyncEngine
from outrider.engine.engine import Engine
from outrider.engine.facts import EngineFacts
from outrider.engine.generation import Generation, Host, TextPrompt
from outrider.formats.format import Floats
from outrider.llm import LLM
from outrider.metrics import Metric, Tally
from outrider.models.tokenizer import Tokenizer
from outrider.params import SamplingParams
from outrider.serving.ollama.card import Card, card_of
from outrider.serving.settings import public_name

T = TypeVar("T")
PREFIX = "outrider:"
"""What the names of metrics begin with. What follows is vLLM's where it has the metric."""


@dataclass(frozen=True, kw_only=True)
class ServedModel(EngineFacts):
    """All that has to be known of a model to read requests and to tell answers, without computing any.

    sampling_defaults: by the names of SamplingParams. Drafters have the names that clients may see.
    """

    tokenizer: Tokenizer
    sampling_defaults: Mapping[str, Any]

    @classmethod
    def of(cls, llm: LLM) -> ServedModel:
        engine = llm.shared.engine
        facts = vars(engine.about) | {"drafters": tuple(map(public_name, engine.about.drafters))}
        return cls(tokenizer=engine.tokenizer, sampling_defaults=dict(engine.sampling_defaults), **facts)


class ServedEngine(Host, Protocol):
    """The engine behind the routes: one in this process, or replicas elsewhere."""

    @property
    def stopped(self) -> str | None:
        """Why no call is taken any more; None while calls are."""

    @property
    def num_sequences(self) -> int:
        """Running and waiting."""

    def start(self) -> None:
        """Begin to serve; called once, in the event loop."""

    async def close(self) -> None:
        """End all calls."""

    async def drain(self, timeout: float) -> bool:
        """Take no more calls and wait for those there are; False if some were left, which are then ended."""

    def generate(
        self, prompts: Sequence[TextPrompt], params: SamplingParams, *, priority: int = 0
    ) -> Generation:
        """A call, to be entered. See `AsyncEngine.generate`."""

    def check_fits(self, sequences: int) -> None:
        """Raise RequestError for more sequences than are ever taken."""

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        """An embedding. See `AsyncEngine.embed`."""

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        """What has been counted, those of one name one after the other. labels: of each."""

    async def card(self, name: str, modified: str) -> Card:
        """What Ollama's clients are told of the model. Raises ModelError where its files are gone."""


class LocalEngine(AsyncEngine):
    """The engine of a process that computes itself what it serves.

    queue: sequences that may wait, besides those that run. learning: how the head learns, if it does.
    """

    def __init__(self, llm: LLM, *, queue: float, learning: AdaptConfig | None = None) -> None:
        self._llm = llm
        self._tally = Tally()
        engine = llm.shared.engine
        super().__init__(engine, capacity=engine.about.max_num_seqs + queue, watcher=self._tally)
        self.adapter: Adapter | None = None
        """Has the head learn, where that was asked for."""
        self._adapting = ExitStack()
        if learning is not None:
            self.adapter = adapter_of(llm.engine, learning, self._between_steps_of_ours)

    def start(self) -> None:
        super().start()
        if self.adapter is not None:
            self._adapting.enter_context(self.adapter)

    async def close(self) -> None:
        self._adapting.close()
        await super().close()

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        seen = self._tally.snapshot(self._llm.shared.engine, prefix=PREFIX, labels=labels)
        if self.adapter is not None:
            seen += self.adapter.figures.snapshot(prefix=PREFIX, labels=labels)
        return seen

    async def card(self, name: str, modified: str) -> Card:
        return await asyncio.to_thread(card_of, self._llm, name, modified)

    def _between_steps_of_ours(self, question: Callable[[Engine], T]) -> Future[T]:
        return self.between_steps(lambda engine: question(engine.ours))
