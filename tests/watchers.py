"""What tests see of an engine while it works."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from outrider import LLM
from outrider.cache.pool import BlockPool
from outrider.engine.lending import Lending
from outrider.engine.request import Request
from outrider.engine.scheduler import Schedule
from outrider.engine.seam import StepEngine
from outrider.engine.verify import Judged
from outrider.engine.watcher import Watcher
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.outputs import Increment, RequestOutput


@dataclass(eq=False)
class Record(Watcher):
    """All that an engine has told. What its values refer to, such as a request, goes on changing."""

    schedules: list[Schedule] = field(default_factory=list)
    judged: list[Judged] = field(default_factory=list)
    increments: list[Increment] = field(default_factory=list)
    outputs: list[RequestOutput] = field(default_factory=list)

    def scheduled(self, schedule: Schedule) -> None:
        self.schedules.append(schedule)

    def verified(self, judged: Sequence[Judged]) -> None:
        self.judged += judged

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        self.increments += increments

    def finished(self, output: RequestOutput) -> None:
        self.outputs.append(output)

    @property
    def preempted(self) -> list[tuple[Request, ...]]:
        """Who gave way, step by step."""
        return [schedule.preempted for schedule in self.schedules]


@dataclass(eq=False)
class Lent(Watcher):
    """Whether an engine's memory was lent, and whether these pools were as large as that, step by step."""

    lending: Lending
    pools: Sequence[BlockPool]
    lent: list[bool] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._own = [pool.num_blocks for pool in self.pools]

    def scheduled(self, schedule: Schedule) -> None:
        self.lent.append(lent := self.lending.lent)
        for own, pool in zip(self._own, self.pools, strict=True):
            check(pool.num_blocks == own + pool.reserve * lent, "a pool is not as large as what is lent")


def before_passes(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[ModelRunner, Sequence[Span]], None]
) -> None:
    """Look at every pass, also at those that are measured while an engine is built."""
    step = ModelRunner.step

    def looked(self: ModelRunner, spans: Sequence[Span], choices: Any, **others: Any) -> Any:
        look(self, spans)
        return step(self, spans, choices, **others)

    monkeypatch.setattr(ModelRunner, "step", looked)


def check(holds: bool, what: str) -> None:
    """Assert inside an engine, which tolerates exceptions of its watchers and plans, but not this one."""
    if not holds:
        pytest.fail(what)


def record(llm: LLM) -> Record:
    """What the engine does from now on."""
    watcher = Record()
    llm.engine.watchers.append(watcher)
    return watcher
