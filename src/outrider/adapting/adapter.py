"""A head that learns while its engine serves."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Condition, Lock, Thread
from types import TracebackType
from typing import Any, Protocol, Self

from outrider.adapting.figures import Figures
from outrider.adapting.idle import AllTheTime, TrainingTime, WhileIdle
from outrider.adapting.live import LiveCheck, Trust
from outrider.adapting.messages import GoBack, Passage, TrainingRound
from outrider.adapting.settings import AdaptConfig
from outrider.adapting.traffic import Traffic
from outrider.aside import aside
from outrider.drafting.head import HeadDrafter
from outrider.engine.engine import Engine
from outrider.engine.scheduler import Schedule
from outrider.engine.seam import StepEngine
from outrider.engine.verify import Judged
from outrider.engine.watcher import Watcher
from outrider.faults import Faults
from outrider.models.eagle3 import Eagle3
from outrider.models.head import DraftHead
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.outputs import Increment, RequestOutput

logger = logging.getLogger(__name__)


class HeadTrainer(Protocol):
    """Who trains: `outrider.adapting.child.TrainingProcess`."""

    def send(self, message: Any) -> None: ...

    def receive(self) -> Any: ...

    def hold(self) -> None: ...

    def release(self) -> None: ...

    def why_it_ended(self) -> str: ...

    def close(self) -> None: ...


class BetweenSteps(Protocol):
    """Has the engine's thread call something between two steps, from any thread."""

    def __call__(self, question: Callable[[Engine], None]) -> Future[None]: ...


@dataclass(frozen=True)
class HeadVersion:
    """A head as it drafts, and what it was made of. number: 0 is the one that was loaded."""

    number: int
    head: DraftHead
    checkpoint: HeadCheckpoint


class Adapter(Watcher):
    """Hands what the target says to a trainer, and has the engine draft with what comes of it.

    A version takes over between two steps, if the trainer found it better on the latest traffic, and is taken
    back if drafts then stand less often than before. No output depends on any of that: see
    `outrider.drafting.base.Drafter`.

    checkpoint: what `drafter` was made of. Three threads meet here. The engine's tells what it does and does
    the exchange; one hands passages over, which waits while the trainer is held; one listens.
    """

    def __init__(
        self,
        engine: Engine,
        drafter: HeadDrafter,
        checkpoint: HeadCheckpoint,
        trainer: HeadTrainer,
        between_steps: BetweenSteps,
        config: AdaptConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        live: LiveCheck | None = None,
    ) -> None:
        self.figures = Figures()
        self._engine, self._drafter, self._trainer = engine, drafter, trainer
        self._between_steps = between_steps
        self._config = config
        self._time: TrainingTime = AllTheTime() if config.cores else WhileIdle(config.idle, clock)
        self._live = live or LiveCheck()
        self._source = engine.drafters.drafters.index(drafter)
        self._now = HeadVersion(0, drafter.head, checkpoint)
        self._before: HeadVersion | None = None
        self._faults = Faults(logger)
        self._changed, self._saving = Condition(), Lock()
        self._waiting: deque[Passage] = deque()
        self._back: GoBack | None = None
        self._ended = False
        self.waiting_bytes = 0
        """Bytes of passages that wait to be handed over."""
        self.figures.set("adapt_running", 1)
        trainer.hold()
        layers = {*drafter.state_layers, engine.target.model.config.num_layers}
        self._traffic = Traffic(sorted(layers), self._keep)
        engine.read_states(self._traffic)
        engine.watchers.append(self)
        self._threads = [Thread(target=work, daemon=True) for work in (self._hand_over, self._listen)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the training. The engine goes on with the version that it has."""
        self._end()
        for thread in self._threads:
            thread.join()

    # What the engine's thread tells.

    def scheduled(self, schedule: Schedule) -> None:
        """A step begins: the trainer stops before that, unless it has cores of its own."""
        self._make_way()

    def embedding(self) -> None:
        """A text is embedded, which is no step; the server counts as idle a while after that."""
        self._make_way()
        self._perhaps_idle()

    def verified(self, judged: Sequence[Judged]) -> None:
        """Drafts of the head stood or not."""
        for j in judged:
            if j.draft.tokens and j.draft.source == self._source:
                trust = self._live.add(j.verdict.accepted > 0)
                if trust is Trust.WORSE:
                    self._between_steps(self._take_back)
                elif trust is Trust.BETTER:
                    self._before = None

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        """A step has ended."""
        self._perhaps_idle()

    def finished(self, output: RequestOutput) -> None:
        """A request has ended, also without a step."""
        self._perhaps_idle()

    def _make_way(self) -> None:
        self._time.busy()
        if self._time.left():
            with self._changed:
                self._trainer.hold()

    def _perhaps_idle(self) -> None:
        if not self._engine.unfinished:
            with self._changed:
                self._time.idle()
                self._changed.notify()

    def _keep(self, passage: Passage) -> None:
        """Keep a passage until the trainer takes it; the oldest make room."""
        with self._changed:
            if self._ended:
                return
            self._waiting.append(passage)
            self.waiting_bytes += passage.nbytes
            while self.waiting_bytes > self._config.waiting:
                self.waiting_bytes -= self._waiting.popleft().nbytes
            self._changed.notify()

    def _take_over(self, version: HeadVersion, found: TrainingRound) -> None:
        before = self._now
        try:
            self._drafter.exchange(version.head)
        except Exception:
            self._faults.tell("a new version of the head could not take over")
            self._drafter.exchange(before.head)
            return
        self._before, self._now = before, version
        self._live.exchanged()
        self.figures.set("head_version", version.number)
        self.figures.count("adapt_exchanges")
        said = {"version": version.number, "before": round(found.before, 3), "after": round(found.after, 3)}
        logger.info("a new version of the head drafts", extra={"fields": said})

    def _take_back(self, engine: Engine) -> None:
        before, worse = self._before, self._now
        if before is None:
            return
        self._drafter.exchange(before.head)
        self._now, self._before = before, None
        self._live.exchanged()
        self.figures.set("head_version", before.number)
        self.figures.count("adapt_rollbacks")
        logger.warning(
            "version %d of the head was taken back, since its drafts stood less often than those of version "
            "%d",
            worse.number,
            before.number,
        )
        with self._changed:
            self._back = GoBack(worse.number)
            self._changed.notify()
        aside(partial(self._save, before.checkpoint))

    # What the other two threads do.

    def _hand_over(self) -> None:
        """Let the trainer work when it may, and give it what there is."""
        while (message := self._next()) is not None:
            try:
                self._trainer.send(message)
            except OSError:
                return  # who listens says so

    def _next(self) -> Passage | GoBack | None:
        """Wait until the trainer may work and there is something for it; None once all has ended."""
        with self._changed:
            while not self._ended:
                left = self._time.left()
                if not left:
                    self._trainer.release()
                    if self._back is not None:
                        back, self._back = self._back, None
                        return back
                    if self._waiting:
                        passage = self._waiting.popleft()
                        self.waiting_bytes -= passage.nbytes
                        return passage
                self._changed.wait(left if 0 < left < math.inf else None)
        return None

    def _listen(self) -> None:
        while True:
            try:
                found = self._trainer.receive()
            except (EOFError, OSError):
                break
            with self._faults.tolerated("what was learnt could not be used"):
                self._hear(found)
        if not self._ended:
            logger.warning(
                "the head learns no more: the training process %s; the server goes on with version %d",
                self._trainer.why_it_ended(),
                self._now.number,
            )
            self._end()

    def _hear(self, found: TrainingRound) -> None:
        self.figures.add(found)
        if found.tensors is None:
            said = {"before": round(found.before, 3), "after": round(found.after, 3)}
            logger.info("the head has learnt, and is not yet better", extra={"fields": said})
            return
        now = self._now
        checkpoint = now.checkpoint.with_tensors(found.tensors)
        head = Eagle3(checkpoint, now.head.backend, self._engine.target.model)
        version = HeadVersion(found.version, head, checkpoint)
        self._between_steps(lambda engine: self._take_over(version, found))
        self._save(checkpoint)

    def _save(self, checkpoint: HeadCheckpoint) -> None:
        if self._config.save is not None:
            with self._saving, self._faults.tolerated(f"the head could not be saved in {self._config.save}"):
                save_whole(checkpoint, self._config.save)

    def _end(self) -> None:
        with self._changed:
            self._ended = True
            self._waiting.clear()
            self.waiting_bytes = 0
            self._traffic.stop()
            self.figures.set("adapt_running", 0)
            self._changed.notify_all()
        self._trainer.close()


def save_whole(checkpoint: HeadCheckpoint, folder: Path) -> None:
    """Write a head in place of the one that is there, file by file, each of them whole. Raises OSError."""
    partial = folder / ".partial"
    checkpoint.save(partial)
    for file in partial.iterdir():
        file.replace(folder / file.name)
    partial.rmdir()
