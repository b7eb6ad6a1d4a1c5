"""The engine behind an event loop: one thread steps it, and calls wait for what it yields.

Only that thread touches the engine. The loop's side sends it orders, which it reads between two steps, and
it sends each step's news back in one call to the loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from time import monotonic
from typing import TypeVar

from outrider.aside import aside
from outrider.engine.embedding import CacheInUse
from outrider.engine.engine import Engine
from outrider.engine.generation import (
    EngineFailed,
    EngineStopped,
    Generation,
    News,
    QueueFull,
    TextPrompt,
)
from outrider.engine.request import RequestGroup
from outrider.engine.watcher import Watcher
from outrider.errors import INTERNAL_ERROR, OutriderError, RequestError
from outrider.formats.format import Floats
from outrider.params import SamplingParams
from outrider.sandbox.workers import GivenUp

logger = logging.getLogger(__name__)
T = TypeVar("T")

RECENT = 32  # departures over which the time until the next one is estimated
MAX_UNREAD = 1024
"""Increments of each of its sequences that a call may leave unread."""


class AsyncEngine:
    """Serves an engine to one event loop.

    capacity: sequences that may be in the engine at a time, running and waiting; one call more raises
    QueueFull. unread: increments of each of its sequences that a call may leave unread; None: `MAX_UNREAD`.
    watcher: is told what the engine does meanwhile. A fault in one request ends that request; one in a step
    that could not be confined ends those that ran in it, with EngineFailed.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        capacity: float,
        unread: float | None = None,
        watcher: Watcher | None = None,
    ) -> None:
        self.capacity = capacity
        self._unread = MAX_UNREAD if unread is None else unread
        self._engine = engine
        self._watchers = [] if watcher is None else [watcher]
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._generations: dict[str, Generation] = {}  # by request id; of the engine's thread
        self._seated: set[Generation] = set()  # of the loop's thread, as all that follows
        self._embedding: set[asyncio.Future[Floats]] = set()
        self._departures: deque[float] = deque(maxlen=RECENT)
        self._all_left = asyncio.Event()
        self._all_left.set()
        self._stopped: str | None = "the engine has not been started"
        self._running = False
        self._thread = threading.Thread(target=self._work, name="outrider-engine", daemon=True)

    def start(self) -> None:
        """Begin to serve; called once, in the event loop."""
        self._loop = asyncio.get_running_loop()
        self._stopped, self._running = None, True
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
        return sum(generation.sequences for generation in self._seated)

    def check_fits(self, sequences: int) -> None:
        """Raise RequestError for more sequences than the engine ever takes."""
        if sequences > self.capacity:
            raise RequestError(
                f"the request asks for {sequences} sequences, prompts times n; the server takes "
                f"{self.capacity} at a time at most"
            )

    async def drain(self, timeout: float) -> bool:
        """Take no more calls and wait for those there are; False if some were left, which are then ended.

        timeout: in seconds.
        """
        self._stopped = self._stopped or "the server is shutting down"
        try:
            async with asyncio.timeout(timeout):
                await self._all_left.wait()
        except TimeoutError:
            self._stop_all()
            return False
        return True

    async def close(self) -> None:
        """What `stop` does, while the loop goes on."""
        self._end()
        await asyncio.to_thread(self._join)

    def stop(self) -> None:
        """Stop the thread after the step that runs, whatever waits, and end what is left."""
        self._end()
        self._join()

    def _end(self) -> None:
        self._stopped = self._stopped or "the engine is shutting down"
        self._stop_all()
        self._orders.put(self._quit)

    def _join(self) -> None:
        if self._thread.is_alive():
            self._thread.join()

    async def ask(self, question: Callable[[Engine], T]) -> T:
        """What the engine's thread finds out between two steps. Raises EngineStopped, and what it raises."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        return await asyncio.wrap_future(self.between_steps(question))

    def between_steps(self, question: Callable[[Engine], T]) -> Future[T]:
        """What the engine's thread finds out, or changes, between two steps: before the next, or at once.

        Any thread may call it. What an engine is asked after its end has no answer.
        """
        answer: Future[T] = Future()

        def find_out() -> None:
            try:
                answer.set_result(question(self._engine))
            except BaseException as error:
                answer.set_exception(error)

        self._orders.put(find_out)
        return answer

    async def enter(self, generation: Generation) -> None:
        """What `Generation.enter` does."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        self._check_room(generation.sequences)
        self._seated.add(generation)
        self._all_left.clear()
        try:
            await self._compile(generation)
            groups = await asyncio.to_thread(self._prepare, generation)
            if generation.given_up.is_set():
                raise EngineStopped(str(self._stopped))
            queued = generation.queued = self._loop.create_future()
            self._orders.put(lambda: self._queue(generation, groups, queued))
            await queued
        except BaseException:
            self.leave(generation)
            raise

    async def _compile(self, generation: Generation) -> None:
        """Compile a grammar before the engine's thread has to, and not beyond the caller's leaving."""
        wanted, given_up = generation.params.structured_outputs, generation.given_up
        if wanted is None:
            return
        compiling = aside(lambda: self._engine.grammars.compile(wanted, given_up))
        try:
            generation.grammar = await asyncio.wrap_future(compiling)
        except GivenUp:
            raise EngineStopped(str(self._stopped)) from None

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        """An embedding, computed between two steps. Raises what `Embedder.embed` does, QueueFull where
        requests have the cache, EngineStopped and EngineFailed."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        result: asyncio.Future[Floats] = self._loop.create_future()
        self._embedding.add(result)
        result.add_done_callback(self._embedding.discard)
        self._orders.put(lambda: self._embed(token_ids, result))
        return await result

    def leave(self, generation: Generation) -> None:
        """What `Generation.leave` does: free the seats at once, and the blocks before the next step."""
        if generation in self._seated:
            generation.given_up.set()
            self._orders.put(lambda: self._give_up(generation))
            self._unseat(generation)

    def abort(self, generation: Generation) -> None:
        """End the requests of a call, which then has their outputs so far."""
        self._orders.put(lambda: self._abort(generation))

    def _unseat(self, generation: Generation) -> None:
        self._seated.discard(generation)
        if not self._seated:
            self._all_left.set()

    def _check_room(self, sequences: int) -> None:
        self.check_fits(sequences)
        there = self.num_sequences
        if there + sequences > self.capacity:
            raise QueueFull(
                f"the queue is full: {there} sequences are running or waiting, and {self.capacity} may; "
                "try again later",
                self._retry_after(),
            )

    def _retry_after(self) -> float:
        """The mean time between the last departures."""
        if len(self._departures) < 2:
            return 1.0
        return (self._departures[-1] - self._departures[0]) / (len(self._departures) - 1)

    def _prepare(self, generation: Generation) -> list[RequestGroup]:
        """The requests of a call, in a thread of its own: nothing that grows with what a client sends is done
        where the engine, or the loop, would wait for it."""
        try:
            return [
                self._engine.prepare(
                    prompt.token_ids, generation.params, prompt=prompt.text, priority=generation.priority
                )
                for prompt in generation.prompts
            ]
        except OutriderError:
            raise
        except Exception:
            logger.exception("a request could not be prepared")
            raise EngineFailed(INTERNAL_ERROR) from None

    # What follows runs in the engine's thread.

    def _work(self) -> None:
        self._engine.watchers += self._watchers
        try:
            while self._running:
                self._read_orders()
                if self._running and self._engine.unfinished:
                    self._step()
        except BaseException:
            logger.critical("the engine has stopped", exc_info=True)
            self._tell(self._die)
        finally:
            for watcher in self._watchers:
                self._engine.watchers.remove(watcher)

    def _read_orders(self) -> None:
        """All there are; with nothing to step, wait for one."""
        try:
            while self._running:
                self._orders.get(block=not self._engine.unfinished)()
        except Empty:
            return

    def _embed(self, token_ids: Sequence[int], result: asyncio.Future[Floats]) -> None:
        answer: Floats | Exception
        try:
            answer = self._engine.embed(token_ids)
        except CacheInUse as error:
            answer = QueueFull(f"{error}; try again later", 1.0)
        except OutriderError as error:
            answer = error
        except Exception:
            logger.exception("a text could not be embedded")
            answer = EngineFailed(INTERNAL_ERROR)
        self._tell(lambda: _answer(result, answer))

    def _quit(self) -> None:
        self._running = False

    def _queue(
        self, generation: Generation, groups: Sequence[RequestGroup], queued: asyncio.Future[None]
    ) -> None:
        for group in groups:
            generation.ids.append(self._engine.queue(group))
            self._generations[group.id] = generation
        self._tell(lambda: _answer(queued, None))
        if generation.aborted:
            self._abort(generation)

    def _abort(self, generation: Generation) -> None:
        generation.aborted = True
        for request_id in generation.ids:
            if self._generations.pop(request_id, None) is not None:
                self._engine.abort(request_id)
                generation.taken[request_id] = self._engine.take(request_id)
        if generation.ids:
            self._tell(lambda: self._deliver([(generation, None)]))

    def _give_up(self, generation: Generation) -> None:
        for request_id in generation.ids:
            if self._generations.pop(request_id, None) is not None:
                self._engine.abort(request_id)
                self._engine.take(request_id)

    def _step(self) -> None:
        try:
            increments = self._engine.step()
        except Exception:
            logger.exception("a step failed; the requests that ran in it end with an error")
            self._fail_running()
            return
        news: list[tuple[Generation, News]] = []
        for increment in increments:
            generation = self._generations[increment.request_id]
            news.append((generation, (generation.ids.index(increment.request_id), increment)))
        for request_id in dict.fromkeys(i.request_id for i in increments if i.finish_reason is not None):
            if self._engine.finished(request_id):
                generation = self._generations.pop(request_id)
                generation.taken[request_id] = self._engine.take(request_id)
                if len(generation.taken) == len(generation.ids):
                    news.append((generation, None))
        self._tell(lambda: self._deliver(news))

    def _fail_running(self) -> None:
        """End the requests that a failed step may have harmed; if none ran yet, the one that was to start."""
        scheduler = self._engine.scheduler
        harmed = scheduler.running or scheduler.waiting[:1]
        generations = {self._generations[request.id] for request in harmed}
        for generation in generations:
            self._give_up(generation)
        self._tell(lambda: self._deliver([(g, EngineFailed(INTERNAL_ERROR)) for g in generations]))

    def _tell(self, call: Callable[[], object]) -> None:
        """Have the loop's thread run `call`; nobody is there to listen once the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            self._running = False

    # What follows runs in the loop's thread again.

    def _deliver(self, news: Sequence[tuple[Generation, News]]) -> None:
        for generation, item in news:
            if generation not in self._seated:
                continue  # it has left, and nobody reads what the engine still had for it
            if item is None:
                generation.outputs = [generation.taken[request_id] for request_id in generation.ids]
                self._departures.append(monotonic())
                self._unseat(generation)  # also of a caller who is slow to read
            if generation.inbox.qsize() < self._unread * generation.sequences:
                generation.inbox.put_nowait(item)
            else:
                self._drop(generation)

    def _drop(self, generation: Generation) -> None:
        """Give up a call whose caller does not read, and whose answer would fill the memory."""
        while not generation.inbox.empty():
            generation.inbox.get_nowait()
        unread = (
            f"{self._unread} tokens of each sequence were not read, and the request was ended; read faster"
        )
        generation.inbox.put_nowait(RequestError(unread))
        self.leave(generation)

    def _die(self) -> None:
        self._stopped = "the engine has stopped after a fault; the log says more"
        self._stop_all()

    def _stop_all(self) -> None:
        """Tell all calls, wherever they are, that the engine does no more for them."""
        stopped = EngineStopped(str(self._stopped))
        for result in [*self._embedding]:
            _answer(result, stopped)
        for generation in self._seated:
            generation.given_up.set()
            if generation.queued is not None:
                _answer(generation.queued, stopped)
            generation.inbox.put_nowait(stopped)


def _answer(waiting: asyncio.Future[T], answer: T | Exception) -> None:
    """Tell a caller that still waits."""
    if waiting.done():
        return
    if isinstance(answer, Exception):
        waiting.set_exception(answer)
    else:
        waiting.set_result(answer)
