"""A trainer that is the test, and the traffic of tiny models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from outrider import LLM, SamplingParams
from outrider.adapting.adapter import Adapter
from outrider.adapting.live import LiveCheck
from outrider.adapting.messages import Passage, TrainingRound
from outrider.adapting.settings import AdaptConfig
from outrider.adapting.traffic import Traffic
from outrider.drafting.head import HeadDrafter
from outrider.engine.engine import Engine
from outrider.formats.floats import float32_to_bfloat16
from outrider.models.head_checkpoint import HeadCheckpoint
from tests.engine.helpers import drafters_of, load

AT_ONCE = AdaptConfig(idle=0.0)
"""Training may go on as soon as nothing runs."""


@dataclass(eq=False)
class FakeTrainer:
    """Notes what it is told, and says what a test puts into `says`."""

    sent: list[Any] = field(default_factory=list)
    says: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    held: bool = False
    releases: int = 0
    closed: bool = False

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def receive(self) -> Any:
        said = self.says.get()
        if isinstance(said, Exception):
            raise said
        return said

    def hold(self) -> None:
        self.held = True

    def release(self) -> None:
        self.releases += self.held
        self.held = False

    def why_it_ended(self) -> str:
        return "was ended by signal 9 (SIGKILL)"

    def close(self) -> None:
        self.closed = True
        self.says.put(EOFError())


@dataclass(eq=False)
class Orders:
    """What is to be done between two steps, by a test that steps."""

    waiting: SimpleQueue[Callable[[Engine], None]] = field(default_factory=SimpleQueue)

    def __call__(self, question: Callable[[Engine], None]) -> Future[None]:
        self.waiting.put(question)
        return Future()

    def do(self, engine: Engine) -> int:
        """All there are; how many."""
        count = 0
        while not self.waiting.empty():
            self.waiting.get()(engine)
            count += 1
        return count


@dataclass(eq=False)
class Adapting:
    """An engine with an adapter, and what stands around it."""

    llm: LLM
    head: str
    trainer: FakeTrainer
    orders: Orders
    adapter: Adapter

    def step(self) -> None:
        self.orders.do(self.llm.engine)
        self.llm.engine.step()

    def run(self, prompts: Iterable[Sequence[int]], params: SamplingParams) -> list[tuple[int, ...]]:
        """The tokens of all, with orders between the steps."""
        engine = self.llm.engine
        ids = [engine.add(prompt, params) for prompt in prompts]
        while engine.unfinished:
            self.step()
        return [engine.take(request_id).outputs[0].token_ids for request_id in ids]

    def offer(self, number: int, scale: float) -> None:
        """A new version: the head, with its output layer times this."""
        self.trainer.says.put(round_of(scaled(self.head, scale), number))


def scaled(head: str, scale: float) -> dict[str, Any]:
    """A head with its output layer times this: at -1 it says what is least likely."""
    stored = HeadCheckpoint(Path(head)).stored
    values = {name: one.floats() for name, one in stored.items() if name not in ("d2t", "t2d")}
    values["lm_head.weight"] = scale * values["lm_head.weight"]
    return {name: float32_to_bfloat16(one).reshape(one.shape) for name, one in values.items()}


def round_of(tensors: dict[str, Any] | None, version: int) -> TrainingRound:
    return TrainingRound(2.0, 2.5, 100, 1.5, version, tensors)


def head_of(llm: LLM) -> HeadDrafter:
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, HeadDrafter)
    return drafter


@contextmanager
def adapting(
    target: str,
    head: str,
    *,
    live: LiveCheck | None = None,
    config: AdaptConfig = AT_ONCE,
    **options: Any,
) -> Iterator[Adapting]:
    llm = load(target, head, **{"num_speculative_tokens": 3} | options)
    trainer, orders = FakeTrainer(), Orders()
    adapter = Adapter(
        llm.engine, head_of(llm), HeadCheckpoint(Path(head)), trainer, orders, config, live=live
    )
    with adapter:
        yield Adapting(llm, head, trainer, orders, adapter)


def passages_of(llm: LLM, layers: Sequence[int]) -> list[Passage]:
    """What there is to learn from what the engine does from now on."""
    kept: list[Passage] = []
    llm.engine.read_states(Traffic(layers, kept.append))
    return kept


def joined(passages: Sequence[Passage]) -> list[int]:
    return [int(token) for passage in passages for token in passage.tokens]
