"""Measuring what target and drafters cost, when an engine is built.

Other work on the machine only ever makes a pass slower. So the quickest of several passes is what one takes,
and more rows in less time show that fewer rows do not take longer either.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import accumulate, cycle, islice
from typing import NamedTuple

import numpy as np

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.drafting.base import CacheReader, Drafter, StateReader
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.engine.admission import admit
from outrider.engine.request import Request
from outrider.models.runner import ModelRunner
from outrider.models.tokenizer import Tokenizer
from outrider.ops.budget import Budget, Price
from outrider.ops.choice import Choice
from outrider.ops.span import Span
from outrider.params import SamplingParams
from outrider.sampling.grammar import Grammars
from outrider.verification.accept import Verdict

Clock = Callable[[], float]
"""Seconds from any time on."""

ROWS = (1, 8, 4, 2, 16, 3, 6, 32, 12, 64, 24, 48, 96)
"""Numbers of rows to time, the most useful first, since the time may not do for all."""
DIFFERENT = max(ROWS)  # tokens of a pass
FEW, MANY = 1, 16  # requests that a drafter is timed with
DEPTH = 4
READ = 33  # tokens of a prompt that a drafter catches up with
TOGETHER, CONTEXT = 8, 192  # requests and positions of each, to time attention with


@dataclass(frozen=True)
class Measuring:
    """How long costs are measured, and when those that were kept are still believed.

    seconds: for the target, and half of that for the drafters together. agrees: times longer or shorter than
    was kept. The quickest passes of two quiet moments differ by some percent; what is off by less than this
    is followed by what steps take. jitter: seconds that say nothing of a cost.
    """

    seconds: float = 0.9
    agrees: float = 1.5
    jitter: float = 1e-4


USUAL = Measuring()
FREE = Price(row=-1.0, token=-1.0, least=0, sure=(1.0,))
"""At which every token is worth it, once it is found out how sure the drafter is."""


class TargetTimer:
    """Passes of the target over made-up tokens, all different: a mixture sends rows to other experts as it
    does in a text, where equal ones would share theirs. `rows`: how many there is room for at most.

    logit_rows: how many of a pass need logits at most. More rows than a step verifies are prompts', and the
    logits of all would be the most memory that an engine for a few requests ever takes.
    """

    def __init__(
        self,
        target: ModelRunner,
        *,
        max_rows: int,
        max_model_len: int,
        clock: Clock,
        logit_rows: int = DIFFERENT,
    ) -> None:
        self.rows = max(2, min(max_rows, max_model_len, target.table().most))
        self.clock = clock
        self._target = target
        self._max_model_len = max_model_len
        self._logit_rows = logit_rows
        self._tables: list[BlockTable] = []
        vocab = range(target.model.config.vocab_size)
        self._tokens = random.Random(0).sample(vocab, min(DIFFERENT, len(vocab)))

    @contextmanager
    def ready(self) -> Iterator[None]:
        """With blocks of the cache, and after a first pass, which allocates."""
        try:
            table = self._extended(1)
            table.extend(self.rows)
            table.room_for_draft(1, self.rows - 1)  # states after rows are kept, as those of a draft
            self.seconds(1)
            yield
        finally:
            for table in self._tables:
                table.truncate(0)

    def seconds(self, rows: int) -> float:
        """The seconds of one pass over so many rows, with an empty context."""
        return self._seconds(self._tables[:1], 0, rows)

    def attention(self) -> tuple[float, float]:
        """Seconds for a cached position, and for a row that attends to it: by rows of several requests with
        and without context. Both are 0 where there is no room to find out. It gives up the blocks that
        `seconds` needs."""
        rows = 5
        context = min(CONTEXT, self._max_model_len - rows)
        if context < 1:
            return 0.0, 0.0
        self._tables[0].truncate(0)
        try:
            together = [self._extended(context) for _ in range(TOGETHER)]
            for table in together:
                table.extend(context + rows)
        except OutOfBlocks:
            return 0.0, 0.0
        extra = []
        for n in (1, rows):
            within, without = (
                min(self._seconds(together, start, n) for _ in range(5)) for start in (context, 0)
            )
            extra.append(max(0.0, within - without) / (TOGETHER * context))
        pair = max(0.0, extra[1] - extra[0]) / (rows - 1)
        return max(0.0, extra[0] - pair), pair

    def _extended(self, positions: int) -> BlockTable:
        table = self._target.table()
        table.extend(positions)
        self._tables.append(table)
        return table

    def _seconds(self, tables: Sequence[BlockTable], start: int, rows: int) -> float:
        tokens = islice(cycle(self._tokens), rows * len(tables))
        chosen = max(1, min(rows, self._logit_rows // len(tables)))
        spans = [Span([*islice(tokens, rows)], start, table.tables, chosen, table.states) for table in tables]
        began = self.clock()
        self._target.step(spans, [Choice(chosen)] * len(spans))
        return self.clock() - began


def target_cost(
    target: ModelRunner,
    *,
    max_rows: int,
    max_model_len: int,
    seconds: float = USUAL.seconds,
    clock: Clock = time.perf_counter,
    logit_rows: int = DIFFERENT,
) -> TargetCost:
    """Time passes of the target over rows of up to `max_rows`, within about `seconds` or as long as its
    backend warms up; see `TargetTimer`."""
    deadline = clock() + seconds
    timer = TargetTimer(
        target, max_rows=max_rows, max_model_len=max_model_len, clock=clock, logit_rows=logit_rows
    )
    with timer.ready():
        rows = [n for n in ROWS if n <= timer.rows]
        least: dict[int, float] = {}
        draw, rounds, warm_up = random.Random(0), 0, target.model.backend.facts.warm_up
        while not least or rounds < warm_up or clock() < deadline:
            for n in rows if not least else draw.sample(rows, len(rows)):
                if rounds >= warm_up and len(least) > 1 and clock() > deadline:
                    break
                least[n] = min(least.get(n, math.inf), timer.seconds(n))
            rounds += 1
        position, pair = timer.attention()
    counts = sorted(least)
    quickest = [*accumulate((least[n] for n in reversed(counts)), min)][::-1]
    return TargetCost(counts, quickest, position=position, position_row=pair, request=1e-4)


class Timed(NamedTuple):
    """The seconds of drafts; steps: tokens that the drafter said for the longest, as many as were asked for
    unless it has a vocabulary of its own; tokens: of all."""

    seconds: float
    steps: int
    tokens: int


class DraftTimer:
    """Drafts for made-up requests."""

    def __init__(self, drafter: Drafter, target: ModelRunner, tokenizer: Tokenizer, clock: Clock) -> None:
        self.clock = clock
        self._drafter = drafter
        self._target = target
        self._tokenizer = tokenizer
        self._grammars = Grammars(tokenizer, target.model.config.vocab_size, ())  # never asked
        self._draw = random.Random(0)
        self._feed = _feeder(drafter, target.model.config.hidden_size)
        self._requests = [self._made_up(2) for _ in range(MANY)]
        self._newcomers: list[Request] = []

    @contextmanager
    def ready(self) -> Iterator[None]:
        """After a first pass, which allocates."""
        try:
            self._timed(self._requests, 1)
            yield
        finally:
            for request in [*self._requests, *self._newcomers]:
                self._drafter.end(request)
                request.table.truncate(0)

    def drafts(self, requests: int, length: int) -> Timed:
        """A draft of so many tokens for each of so many requests, `MANY` at most."""
        return self._timed(self._requests[:requests], length)

    def reading(self) -> Timed:
        """A draft of a token for a request whose prompt of `READ` tokens was not read yet."""
        self._newcomers.append(self._made_up(READ))
        return self._timed(self._newcomers[-1:], 1)

    def line_up(self) -> None:
        """All requests stand at the same place again, after a round of drafts for one and for all."""
        self._timed(self._requests[FEW:], 1)

    def _made_up(self, prompt: int) -> Request:
        tokens = [self._token() for _ in range(prompt)]
        params = SamplingParams(temperature=0, max_tokens=None)
        return admit(
            "",
            tokens,
            params,
            prompt=None,
            seed=0,
            target=self._target,
            tokenizer=self._tokenizer,
            max_model_len=10**6,
            grammars=self._grammars,
            now=0.0,
        ).requests[0]

    def _token(self) -> int:
        return self._draw.randrange(self._target.model.config.vocab_size)

    def _timed(self, requests: Sequence[Request], length: int) -> Timed:
        for request in requests:
            self._feed(request)
        began = self.clock()
        drafts = self._drafter.draft(requests, [Budget(length, FREE)] * len(requests))
        took = self.clock() - began
        token = self._token()
        self._drafter.observe(requests, [Verdict(0, (token,))] * len(requests))
        for request in requests:
            request.tokens.append(token)
        said = [draft.steps or length for draft in drafts]
        return Timed(took, max(said), sum(said))


def draft_cost(
    drafter: Drafter,
    target: ModelRunner,
    tokenizer: Tokenizer,
    *,
    seconds: float,
    clock: Clock = time.perf_counter,
) -> DraftCost:
    """Time a drafter on made-up requests, within about `seconds` or as long as the backend warms up."""
    deadline = clock() + seconds
    timer = DraftTimer(drafter, target, tokenizer, clock)
    drafts: dict[tuple[int, int], Timed] = {}
    reading: list[Timed] = []
    with timer.ready():
        least = max(1, target.model.backend.facts.warm_up)  # rounds
        while len(reading) < least or (clock() < deadline and len(reading) < 9):
            reading.append(timer.reading())
            for requests in (FEW, MANY):
                for length in (1, DEPTH):
                    took = timer.drafts(requests, length)
                    drafts[requests, length] = min(drafts.get((requests, length), took), took)
            timer.line_up()
    # Asking n requests for a token, and another step of the drafter.
    first = [drafts[n, 1] for n in (FEW, MANY)]
    another = [
        max(0.0, drafts[n, DEPTH].seconds - asked.seconds) / max(1, drafts[n, DEPTH].steps - asked.steps)
        for n, asked in zip((FEW, MANY), first, strict=True)
    ]
    each = max(0.0, another[1] - another[0]) / (MANY - FEW)
    fixed = max(0.0, another[0] - FEW * each)
    alone, together = (asked.seconds - asked.steps * step for asked, step in zip(first, another, strict=True))
    catching_up = min(timed.seconds - timed.steps * another[0] for timed in reading)
    return DraftCost(fixed, each, max(0.0, together) / MANY, max(0.0, catching_up - alone) / (READ - 1))


def _feeder(drafter: Drafter, hidden: int) -> Callable[[Request], None]:
    """Gives a drafter that reads states made-up ones, of all tokens but the request's last."""
    if not isinstance(drafter, StateReader):
        return lambda request: None
    reader, known = drafter, dict[Request, int]()

    def feed(request: Request) -> None:
        first = known.get(request, 0)
        known[request] = len(request.tokens) - 1
        states = np.zeros((known[request] - first, len(reader.state_layers) * hidden), np.float32)
        reader.read(request, first, states)
        if isinstance(reader, CacheReader):
            _fill(request.table, known[request])

    return feed


def _fill(table: BlockTable, length: int) -> None:
    """Have K and V of so many positions, whatever they are, as far as there is room."""
    with suppress(OutOfBlocks):
        table.extend(length)
        table.filled = length
