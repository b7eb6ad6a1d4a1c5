"""What the routes know of a model, and what they ask of the engine that computes it, wherever that is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol

from outrider.adapting.adapter import Adapter
from outrider.adapting.attach import adapter_of
from outrider.adapting.settings import AdaptConfig
from outrider.engine.async_engine import AsyncEngine
from outrider.engine.generation import Generation, Host, TextPrompt
from outrider.formats.format import Floats
from outrider.llm import LLM
from outrider.machine.cores import threads_reason
from outrider.metrics import Metric, Tally
from outrider.models.tokenizer import Tokenizer
from outrider.params import SamplingParams
from outrider.serving.ollama.card import Card, card_of
from outrider.serving.settings import public_name

PREFIX = "outrider:"
"""What the names of metrics begin with. What follows is vLLM's where it has the metric."""


@dataclass(frozen=True)
class ServedModel:
    """All that has to be known of a model to read requests and to tell answers, without computing any.

    max_model_len: tokens of a prompt and its output; embedding_size: numbers of one; max_num_seqs: sequences
    that one engine runs at a time; block_size: tokens of a block of its cache;
    kv_cache_memory: bytes that the cache may take; sampling_defaults: by the names of SamplingParams;
    drafters: their names, in the order in which they are asked; seed: of the engine; threads: how many
    compute, and why.
    """

    tokenizer: Tokenizer
    max_model_len: int
    vocab_size: int
    embedding_size: int
    max_num_seqs: int
    block_size: int
    kv_cache_memory: int
    sampling_defaults: Mapping[str, Any]
    drafters: tuple[str, ...]
    seed: int
    threads: str

    @classmethod
    def of(cls, llm: LLM) -> ServedModel:
        config, engine = llm.config, llm.engine
        speculative = config.speculative
        return cls(
            tokenizer=engine.tokenizer,
            max_model_len=engine.max_model_len,
            vocab_size=engine.target.model.config.vocab_size,
            embedding_size=engine.embedder.size,
            max_num_seqs=config.max_num_seqs,
            block_size=config.block_size,
            kv_cache_memory=config.kv_cache_memory,
            sampling_defaults=dict(engine.sampling_defaults),
            drafters=() if speculative is None else tuple(public_name(d.name) for d in speculative.drafters),
            seed=config.seed,
            threads=_threads(llm),
        )


def _threads(llm: LLM) -> str:
    facts = llm.engine.facts
    why = "PyTorch's" if facts.kernels is None else threads_reason(llm.config.num_threads)
    return f"{facts.threads} ({why})"


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
        super().__init__(llm.engine, capacity=llm.config.max_num_seqs + queue, watcher=self._tally)
        self.adapter: Adapter | None = None
        """Has the head learn, where that was asked for."""
        self._adapting = ExitStack()
        if learning is not None:
            self.adapter = adapter_of(llm.engine, llm.config, learning, self.between_steps)

    def start(self) -> None:
        super().start()
        if self.adapter is not None:
            self._adapting.enter_context(self.adapter)

    async def close(self) -> None:
        self._adapting.close()
        await super().close()

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        seen = self._tally.snapshot(self._llm.engine, prefix=PREFIX, labels=labels)
        if self.adapter is not None:
            seen += self.adapter.figures.snapshot(prefix=PREFIX, labels=labels)
        return seen

    async def card(self, name: str, modified: str) -> Card:
        return await asyncio.to_thread(card_of, self._llm, name, modified)
