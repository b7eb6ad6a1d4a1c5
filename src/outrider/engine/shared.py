"""One engine for several threads: who waits for tokens steps it, for all."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from outrider.engine.seam import Prepared, StepEngine
from outrider.errors import ConfigError
from outrider.fair_lock import FairLock
from outrider.outputs import Increment, RequestOutput

Inbox = deque[Increment]
"""Where the increments of some requests go, in order."""


class SharedEngine:
    """Hands each request's increments to the inbox that it was queued with, whichever thread steps."""

    def __init__(self, engine: StepEngine) -> None:
        self._engine: StepEngine | None = engine
        self._lock = FairLock()
        self._inboxes: dict[str, Inbox] = {}
        self._left: deque[str] = deque()
        """Requests to abort, as soon as nobody steps the engine."""

    @property
    def engine(self) -> StepEngine:
        """The engine, for whoever has it alone. Raises ConfigError once it is closed."""
        self.check_open()
        assert self._engine is not None
        return self._engine

    def check_open(self) -> None:
        """Raise ConfigError once it is closed."""
        if self._engine is None:
            raise ConfigError("this LLM has been shut down; make another one")

    def close(self) -> None:
        """End all requests, and let go of the engine."""
        with self._lock:
            if self._engine is not None:
                for request_id in self._inboxes:
                    self._engine.discard(request_id)
                self._engine.close()
            self._inboxes.clear()
            self._engine = None

    @property
    def requests(self) -> int:
        """Requests that somebody waits for, or has not taken yet."""
        return len(self._inboxes)

    def queue(self, request: Prepared, inbox: Inbox) -> None:
        """Queue a request that was prepared."""
        with self.alone() as engine:
            self._inboxes[request.id] = inbox
            engine.queue(request)

    def increments(self, ids: Sequence[str], inbox: Inbox) -> Iterator[Increment]:
        """What is added to these requests until they have finished, whoever steps the engine."""
        while self._advance(ids, inbox):
            while inbox:
                yield inbox.popleft()

    def step(self, inbox: Inbox) -> None:
        """Step the engine once, unless others have put something into the inbox already."""
        with self.alone() as engine:
            if not inbox:
                self._step(engine)

    def finished(self, request_id: str) -> bool:
        """Whether a request that was not taken yet has its whole output."""
        with self.alone() as engine:
            return engine.finished(request_id)

    def abort(self, request_id: str) -> None:
        """End a request; its output so far can still be taken."""
        with self.alone() as engine:
            engine.abort(request_id)

    def take(self, request_id: str) -> RequestOutput:
        """The whole output of a request that has finished, which is then forgotten."""
        with self.alone() as engine:
            del self._inboxes[request_id]
            return engine.take(request_id)

    def abandon(self, ids: Sequence[str | None]) -> None:
        """Abort and forget the requests that are still known, at once or when the engine is free.

        It does not wait: a stream may be closed by the collection of garbage, in the middle of a step.
        """
        self._left += [request_id for request_id in ids if request_id is not None]
        self._forget_left()

    @contextmanager
    def alone(self) -> Iterator[StepEngine]:
        """The engine, for this thread alone."""
        try:
            with self._lock:
                yield self.engine
        finally:
            self._forget_left()

    def _advance(self, ids: Sequence[str], inbox: Inbox) -> bool:
        """Step if the inbox is empty; False if nothing can come into it any more."""
        with self.alone() as engine:
            if inbox:
                return True
            if all(map(engine.finished, ids)):
                return False
            self._step(engine)
            return True

    def _step(self, engine: StepEngine) -> None:
        for increment in engine.step():
            if increment.request_id in self._inboxes:
                self._inboxes[increment.request_id].append(increment)

    def _forget_left(self) -> None:
        # Who has the lock comes by here after releasing it, so that nothing is left for long.
        while self._left and self._lock.take_if_free():
            try:
                while self._left:
                    request_id = self._left.popleft()
                    self._inboxes.pop(request_id, None)
                    if self._engine is not None:
                        self._engine.discard(request_id)
            finally:
                self._lock.release()
