"""The thread that steps an engine for an event loop. Nobody else touches the engine."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar

from outrider.engine.embedding import CacheInUse
from outrider.engine.generation import EngineFailed, Generation, News, QueueFull
from outrider.engine.seam import Prepared, StepEngine
from outrider.engine.watcher import Watcher
from outrider.errors import INTERNAL_ERROR, OutriderError
from outrider.formats.format import Floats

logger = logging.getLogger(__name__)
T = TypeVar("T")

Delivery = Sequence[tuple[Generation, News]]
"""The news of a step, and whom they are for."""


class EngineThread:
    """Reads orders between two steps, and sends each step's news back in one call to the event loop.

    watchers: are told what the engine does meanwhile. deliver: takes the news, in the loop's thread; die: is
    called there after a fault that could not be confined.

    Public methods are called by the loop's thread, and `ask` by any.
    """

    def __init__(
        self,
        engine: StepEngine,
        watchers: Sequence[Watcher],
        *,
        deliver: Callable[[Delivery], None],
        die: Callable[[], None],
    ) -> None:
        self._engine = engine
        self._watchers = watchers
        self._deliver = deliver
        self._die = die
        self._orders: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._generations: dict[str, Generation] = {}  # by request id
        self._running = False
        self._thread = threading.Thread(target=self._work, name="outrider-engine", daemon=True)

    def start(self) -> None:
        """Begin to serve the event loop that runs; called once."""
        self._loop = asyncio.get_running_loop()
        self._running = True
        self._thread.start()

    def stop(self) -> None:
        """End after the step that runs, whatever waits."""
        self._orders.put(self._quit)

    def is_alive(self) -> bool:
        """Whether it may still step the engine."""
        return self._thread.is_alive()

    def join(self) -> None:
        """Wait for its end, if it was started."""
        if self._thread.is_alive():
            self._thread.join()

    def ask(self, question: Callable[[StepEngine], T]) -> Future[T]:
        """What it finds out, or changes, between two steps."""
        answered: Future[T] = Future()

        def find_out() -> None:
            try:
                answered.set_result(question(self._engine))
            except BaseException as error:
                answered.set_exception(error)

        self._orders.put(find_out)
        return answered

    def queue(self, generation: Generation, requests: Sequence[Prepared]) -> asyncio.Future[None]:
        """Queue the requests of a call; done when they are."""
        queued: asyncio.Future[None] = self._loop.create_future()
        self._orders.put(lambda: self._queue(generation, requests, queued))
        return queued

    def embed(self, token_ids: Sequence[int]) -> asyncio.Future[Floats]:
        """An embedding; or what `Embedder.embed` raises, QueueFull where requests have the cache, and
        EngineFailed."""
        result: asyncio.Future[Floats] = self._loop.create_future()
        self._orders.put(lambda: self._embed(token_ids, result))
        return result

    def give_up(self, generation: Generation) -> None:
        """Forget the requests of a call, and free their blocks before the next step."""
        self._orders.put(lambda: self._give_up(generation))

    def abort(self, generation: Generation) -> None:
        """End the requests of a call, which then has their outputs so far."""
        self._orders.put(lambda: self._abort(generation))

    # What follows runs in the thread itself.

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

    def _quit(self) -> None:
        self._running = False

    def _embed(self, token_ids: Sequence[int], result: asyncio.Future[Floats]) -> None:
        found: Floats | Exception
        try:
            found = self._engine.embed(token_ids)
        except CacheInUse as error:
            found = QueueFull(f"{error}; try again later", 1.0)
        except OutriderError as error:
            found = error
        except Exception:
            logger.exception("a text could not be embedded")
            found = EngineFailed(INTERNAL_ERROR)
        self._tell(lambda: answer(result, found))

    def _queue(
        self, generation: Generation, requests: Sequence[Prepared], queued: asyncio.Future[None]
    ) -> None:
        for request in requests:
            generation.ids.append(self._engine.queue(request))
            self._generations[request.id] = generation
        self._tell(lambda: answer(queued, None))
        if generation.aborted:
            self._abort(generation)
            return
        over = [request.id for request in requests if self._engine.finished(request.id)]
        ends = [end for request_id in over for end in self._take(request_id)]
        if ends:
            self._tell(lambda: self._deliver(ends))

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
                news += self._take(request_id)
        self._tell(lambda: self._deliver(news))

    def _take(self, request_id: str) -> Delivery:
        """Take the output of a request that has finished; the end of its call, if it is the last."""
        generation = self._generations.pop(request_id)
        generation.taken[request_id] = self._engine.take(request_id)
        return [(generation, None)] if len(generation.taken) == len(generation.prompts) else []

    def _fail_running(self) -> None:
        """End the requests that a failed step may have harmed."""
        generations = {self._generations[request_id] for request_id in self._engine.harmed()}
        for generation in generations:
            self._give_up(generation)
        self._tell(lambda: self._deliver([(g, EngineFailed(INTERNAL_ERROR)) for g in generations]))

    def _tell(self, call: Callable[[], object]) -> None:
        """Have the loop's thread run `call`; nobody is there to listen once the loop is closed."""
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            self._running = False


def answer(waiting: asyncio.Future[T], found: T | Exception) -> None:
    """Tell a caller that still waits."""
    if waiting.done():
        return
    if isinstance(found, Exception):
        waiting.set_exception(found)
    else:
        waiting.set_result(found)
