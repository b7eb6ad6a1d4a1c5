"""Replicas behind the routes of one server, as if they were an engine in its process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from random import Random

from outrider.cache.table import digest_of, root_of
from outrider.cluster.news import ReplicaCall, ReplicaLost, Replicas
from outrider.cluster.resuming import MOST_LOSSES, resuming
from outrider.engine.generation import MAX_UNREAD, EngineFailed, EngineStopped, Generation, TextPrompt
from outrider.engine.seats import Seats
from outrider.errors import INTERNAL_ERROR, OutriderError
from outrider.formats.format import Floats
from outrider.metrics import Metric
from outrider.outputs import RequestOutput
from outrider.params import SamplingParams
from outrider.serving.model import ServedModel
from outrider.serving.ollama.card import Card

logger = logging.getLogger(__name__)

MOST_BLOCKS = 1024
"""Blocks at the beginning of a prompt by which a replica is chosen."""
DIGEST_BYTES = 8
"""Bytes of the digest of each that are sent along: a mistake would only make a cache miss."""


class ReplicatedEngine:
    """Serves calls by replicas, to one event loop. It is a `ServedEngine`.

    capacity: sequences that may run and wait, in all replicas together.
    """

    def __init__(self, replicas: Replicas, model: ServedModel, *, capacity: float) -> None:
        self._replicas = replicas
        self._block_size = model.block_size
        self._seats = Seats(capacity)
        self._seeds = Random(model.seed)
        self._tasks: dict[Generation, list[asyncio.Task[None]]] = {}
        self._stopped: str | None = "the server has not been started"

    @property
    def stopped(self) -> str | None:
        return self._stopped

    @property
    def num_sequences(self) -> int:
        return self._seats.num_sequences

    def start(self) -> None:
        self._stopped = None

    async def close(self) -> None:
        await self.drain(0)

    async def drain(self, timeout: float) -> bool:
        self._stopped = self._stopped or "the server is shutting down"
        try:
            async with asyncio.timeout(timeout):
                await self._seats.all_free.wait()
        except TimeoutError:
            for generation in [*self._seats.taken]:
                generation.inbox.put_nowait(EngineStopped(self._stopped))
                self.leave(generation)
            return False
        return True

    def generate(
        self, prompts: Sequence[TextPrompt], params: SamplingParams, *, priority: int = 0
    ) -> Generation:
        """The parameters are not copied here: what a replica is sent is a copy, which it checks."""
        return Generation(self, prompts, params, priority)

    def check_fits(self, sequences: int) -> None:
        self._seats.check_fits(sequences)

    async def enter(self, generation: Generation) -> None:
        """Have replicas queue all prompts of a call. Raises what any of them is refused with."""
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        self._seats.take(generation)
        queued = [asyncio.get_running_loop().create_future() for _ in generation.prompts]
        outputs: dict[int, RequestOutput] = {}
        self._tasks[generation] = [
            asyncio.create_task(self._serve(generation, number, queued[number], outputs))
            for number in range(len(queued))
        ]
        try:
            await asyncio.gather(*queued)
        except BaseException:
            self.leave(generation)
            raise

    def leave(self, generation: Generation) -> None:
        """Give up what of a call is not finished, and free its seats."""
        for task in self._tasks.pop(generation, ()):
            task.cancel()
        self._seats.free(generation)

    async def embed(self, token_ids: Sequence[int]) -> Floats:
        if self._stopped is not None:
            raise EngineStopped(self._stopped)
        for _ in range(MOST_LOSSES):
            try:
                return await self._replicas.embed(token_ids)
            except ReplicaLost as lost:
                logger.warning("a replica was lost, and a text is embedded elsewhere: %s", lost)
        raise EngineFailed(f"{MOST_LOSSES} replicas were lost one after the other; try again later")

    async def metrics(self, labels: dict[str, str]) -> list[Metric]:
        return sorted(await self._replicas.metrics(labels), key=lambda metric: metric.name)

    async def card(self, name: str, modified: str) -> Card:
        return await self._replicas.card(name, modified)

    async def _serve(
        self,
        generation: Generation,
        number: int,
        queued: asyncio.Future[None],
        outputs: dict[int, RequestOutput],
    ) -> None:
        """Serve one prompt of a call. queued: is told when a replica has it, or why none takes it; outputs:
        of the prompts that have ended."""

        def taken(replica: str) -> None:
            if generation.replicas[-1:] != [replica]:
                generation.replicas.append(replica)
            if not queued.done():
                queued.set_result(None)

        try:
            call = self._call(generation, generation.prompts[number])
            async with aclosing(resuming(self._replicas, call, taken=taken)) as stream:
                async for news in stream:
                    if isinstance(news, RequestOutput):
                        outputs[number] = news
                    elif not generation.tell((number, news), MAX_UNREAD):
                        self.leave(generation)
        except OutriderError as error:
            self._fail(generation, queued, error)
        except Exception:
            logger.exception("a request could not be served by replicas")
            self._fail(generation, queued, EngineFailed(INTERNAL_ERROR))
        else:
            if len(outputs) == len(generation.prompts):
                generation.outputs = [outputs[each] for each in range(len(outputs))]
                self._seats.free(generation, finished=True)  # also of a caller who is slow to read
                generation.tell(None, MAX_UNREAD)

    def _fail(self, generation: Generation, queued: asyncio.Future[None], error: OutriderError) -> None:
        """Tell the caller, who waits for the call to be queued, or reads."""
        if not queued.done():
            queued.set_exception(error)
        else:
            generation.inbox.put_nowait(error)

    def _call(self, generation: Generation, prompt: TextPrompt) -> ReplicaCall:
        """What a replica is asked. The seed is drawn before the first is: those after it go on with it."""
        params = generation.params
        if params.seed is None:
            params = params.model_copy(update={"seed": self._seeds.getrandbits(63)})
        prefix: list[bytes] = []
        digest = root_of(params.cache_salt)
        size = self._block_size
        for first in range(0, min(len(prompt.token_ids), MOST_BLOCKS * size) - size + 1, size):
            digest = digest_of(digest, prompt.token_ids[first : first + size])
            prefix.append(digest[:DIGEST_BYTES])
        return ReplicaCall(prompt, params, generation.priority, tuple(prefix))
