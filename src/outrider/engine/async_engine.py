"""The engine behind an event loop: one thread steps it (`engine_thread`), and calls wait for what it yields.

All that is here runs in the loop's thread, but for what prepares requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from outrider.aside import aside
from outrider.engine.engine_thread import Delivery, EngineThread, answer
from outrider.engine.generation import MAX_UNREAD, EngineFailed, EngineStopped, Generation, TextPrompt
from outrider.engine.seam import Prepared, StepEngine
from outrider.engine.seats import Seats
from outrider.engine.watcher import Watcher
from outrider.errors import INTERNAL_ERROR, OutriderError
from outrider.formats.format import Floats
from outrider.params import SamplingParams
from outrider.sandbox.workers import GivenUp

logger = logging.getLogger(__name__)
T = TypeVar("T")


class AsyncEngine:
    """Serves an engine to one event loop.

    capacity: sequences that may be in the engine at a time, running and waiting; one call more raises
    QueueFull. unread: increments of each of its sequences that a call may leave unread; None: `MAX_UNREAD`.
    watcher: is told what the engine does meanwhile. A fault in one request ends that request; one in a step
    that could not be confined ends those that ran in it, with EngineFailed.
    """

    def __init__(
        self,
        engine: StepEngine,
        *,
        capacity: float,
        unread: float | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self._unread = MAX_UNREAD if unread is None else unread
        self._engine = engine
        watchers = [] if watcher is None else [watcher]
        self._thread = EngineThread(engine, watchers, deliver=self._deliver, die=self._die)
        self._seats = Seats(capacity)
        self._embedding: set[asyncio.Future[Floats]] = set()
        self._stopped: str | None = "the engine has not been started"

    def start(self) -> None:
        """Begin to serve; called once, in the event loop."""
        self._stopped = None
        self._thread.start()

    def generate(
        self, prompts: Sequence[TextPrompt], params: SamplingParams, *, priority: int = 0
    ) -> Generation:
        """A call, to be entered. Entering raises RequestError, QueueFull or EngineStopped.

        Raises ConfigError for parameters that exclude each other.
        """
        return Generation(self, prompts, params.copied(), priority)

    @property
    def stopped(self) -> str | None:
        """Why no call is taken any more; None while calls are."""
        return self._stopped

    @property
    def num_sequences(self) -> int:
        """In the engine, running and waiting."""
        return self._seats.num_sequences

    def check_fits(self, sequences: int) -> None:
        """Raise RequestError for more sequences than the engine ever takes."""
        self._seats.check_fits(sequences)

    async def drain(self, timeout: float) -> bool:
        """Take no more calls and wait for those there are; False if some were left, which are then ended.

        timeout: in seconds.
        """
        self._stopped = self._stopped or "the server is shutting down"
        try:
            async with asyncio.timeout(timeout):
                await self._seats.all_free.wait()
        except TimeoutError:
            self._stop_all()
            return False
        return True

    async def close(self) -> None:
        """What `stop` does, while the loop goes on."""
        self._end()
        await asyncio.to_thread(self._thread.join)

    def stop(self) -> None:
        """Stop the thread after the step that runs, whatever waits, and end what is left."""
        self._end()
        self._thread.join()

    def _end(self) -> None:
        self._stopped = self._stopped or "the engine is shutting down"
        self._stop_all()
        self._thread.stop()

    async def ask(self, question: Callable[[StepEngine], T]) -> T:
        """What the engine's thread finds out between two steps. Raises EngineStopped, and what it raises."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        return await asyncio.wrap_future(self.between_steps(question))

    def between_steps(self, question: Callable[[StepEngine], T]) -> Future[T]:
        """What the engine's thread finds out, or changes, between two steps: before the next, or at once.

        Any thread may call it. What an engine is asked after its end has no answer.
        """
        return self._thread.ask(question)

    async def enter(self, generation: Generation) -> None:
        """What `Generation.enter` does."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        self._seats.take(generation)
        try:
            await self._compile(generation)
            requests = await asyncio.to_thread(self._prepare, generation)
            if generation.given_up.is_set():
                raise EngineStopped(str(self._stopped))
            generation.queued = self._thread.queue(generation, requests)
            await generation.queued
        except BaseException:
            self.leave(generation)
            raise

    async def _compile(self, generation: Generation) -> None:
        """Compile a grammar before the engine's thread has to, and not beyond the caller's leaving."""
        wanted, given_up = generation.params.structured_outputs, generation.given_up
        if wanted is None:
            return
        compiling = aside(lambda: self._engine.compile_grammar(wanted, given_up))
        try:
            generation.grammar = await asyncio.wrap_future(compiling)
        except GivenUp:
            raise EngineStopped(str(self._stopped)) from None

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        """An embedding, computed between two steps. Raises what `Embedder.embed` does, QueueFull where
        requests have the cache, EngineStopped and EngineFailed."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        result = self._thread.embed(token_ids)
        self._embedding.add(result)
        result.add_done_callback(self._embedding.discard)
        return await result

    def leave(self, generation: Generation) -> None:
        """What `Generation.leave` does: free the seats at once, and the blocks before the next step."""
        if generation in self._seats.taken:
            generation.given_up.set()
            self._thread.give_up(generation)
            self._seats.free(generation)

    def abort(self, generation: Generation) -> None:
        """End the requests of a call, which then has their outputs so far."""
        self._thread.abort(generation)

    def _prepare(self, generation: Generation) -> list[Prepared]:
        """The requests of a call, in a thread of its own: nothing that grows with what a client sends is done
        where the engine, or the loop, would wait for it."""
        try:
            return [
                self._engine.prepare(
                    prompt.token_ids,
                    generation.params,
                    prompt=prompt.text,
                    priority=generation.priority,
                    said=prompt.said,
                )
                for prompt in generation.prompts
            ]
        except OutriderError:
            raise
        except Exception:
            logger.exception("a request could not be prepared")
            raise EngineFailed(INTERNAL_ERROR) from None

    def _deliver(self, news: Delivery) -> None:
        for generation, item in news:
            if generation not in self._seats.taken:
                continue  # it has left, and nobody reads what the engine still had for it
            if item is None:
                generation.outputs = [generation.taken[request_id] for request_id in generation.ids]
                self._seats.free(generation, finished=True)  # also of a caller who is slow to read
            if not generation.tell(item, self._unread):
                self.leave(generation)

    def _die(self) -> None:
        self._stopped = "the engine has stopped after a fault; the log says more"
        self._stop_all()

    def _stop_all(self) -> None:
        """Tell all calls, wherever they are, that the engine does no more for them."""
        stopped = EngineStopped(str(self._stopped))
        for result in [*self._embedding]:
            answer(result, stopped)
        for generation in self._seats.taken:
            generation.given_up.set()
            if generation.queued is not None:
                answer(generation.queued, stopped)
            generation.inbox.put_nowait(stopped)
