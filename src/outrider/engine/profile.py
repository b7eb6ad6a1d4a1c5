"""Measuring what target and drafters cost, when an engine is built."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from statistics import median

import torch
from transformers import PreTrainedTokenizerBase

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.drafting.base import Drafter, StateReader
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.limit import Fixed
from outrider.engine.admission import admit
from outrider.engine.request import Request
from outrider.models.runner import ModelRunner
from outrider.ops.batch import Span
from outrider.params import SamplingParams
from outrider.sampling.grammar import Grammars
from outrider.verification.accept import Verdict

SECONDS = 0.9  # for the target, and half of it for the drafters together
ROWS = (1, 8, 4, 2, 16, 3, 6, 32, 12, 64, 24, 48, 96)
"""Numbers of rows to time, the most useful first, since the time may not do for all."""
FEW, MANY = 1, 16  # requests that a drafter is timed with
DEPTH = 4
READ = 33  # tokens of a prompt that a drafter catches up with
TOGETHER, CONTEXT = 8, 192  # requests and positions of each, to time attention with


def target_cost(target: ModelRunner, *, max_rows: int, max_model_len: int) -> TargetCost:
    """Time passes of the target over rows of up to `max_rows`, within `SECONDS`."""
    deadline = time.perf_counter() + SECONDS
    tables: list[BlockTable] = []
    try:
        most = max(2, min(max_rows, max_model_len, target.pool.num_free * target.block_size))
        table = _table(target, most, tables)
        _forward(target, [table], 0, 1)  # the first pass allocates
        rows = [n for n in ROWS if n <= most]
        times: dict[int, list[float]] = {}
        draw = random.Random(0)
        while not times or time.perf_counter() < deadline:
            for n in rows if not times else draw.sample(rows, len(rows)):
                if len(times) > 1 and time.perf_counter() > deadline:
                    break
                times.setdefault(n, []).append(_forward(target, [table], 0, n))
        counts = sorted(times)
        seconds = [median(times[n]) for n in counts]
        position, pair = _attention(target, max_model_len, tables)
    finally:
        for table in tables:
            table.truncate(0)
    return TargetCost(counts, seconds, position=position, position_row=pair, request=1e-4)


def _attention(target: ModelRunner, max_model_len: int, tables: list[BlockTable]) -> tuple[float, float]:
    """Seconds for a cached position, and for a row that attends to it: by rows of several requests with and
    without context. Both are 0 where there is no room to find out."""
    rows = 5
    context = min(CONTEXT, max_model_len - rows)
    if context < 1:
        return 0.0, 0.0
    try:
        together = [_table(target, context + rows, tables) for _ in range(TOGETHER)]
    except OutOfBlocks:
        return 0.0, 0.0
    extra = []
    for n in (1, rows):
        times = [_forward(target, together, context, n) - _forward(target, together, 0, n) for _ in range(5)]
        extra.append(max(0.0, median(times)) / (TOGETHER * context))
    pair = max(0.0, extra[1] - extra[0]) / (rows - 1)
    return max(0.0, extra[0] - pair), pair


def _table(target: ModelRunner, positions: int, tables: list[BlockTable]) -> BlockTable:
    table = target.table()
    table.extend(positions)
    tables.append(table)
    return table


def _forward(target: ModelRunner, tables: Sequence[BlockTable], start: int, rows: int) -> float:
    """Seconds."""
    spans = [Span([1] * rows, start, table.blocks, rows) for table in tables]
    began = time.perf_counter()
    target.forward(spans)[-1, -1].item()  # a GPU may still be at it
    return time.perf_counter() - began


def draft_cost(
    drafter: Drafter, target: ModelRunner, tokenizer: PreTrainedTokenizerBase, *, seconds: float
) -> DraftCost:
    """Time a drafter on made-up requests, within about `seconds`."""
    deadline = time.perf_counter() + seconds
    vocab = target.model.config.vocab_size
    grammars = Grammars(tokenizer, vocab, ())  # never asked
    draw = random.Random(0)

    def made_up(prompt: int) -> Request:
        tokens = [draw.randrange(vocab) for _ in range(prompt)]
        params = SamplingParams(temperature=0, max_tokens=None)
        return admit(
            "",
            tokens,
            params,
            prompt=None,
            seed=0,
            target=target,
            tokenizer=tokenizer,
            max_model_len=10**6,
            grammars=grammars,
        ).requests[0]

    def timed(requests: Sequence[Request], length: int) -> float:
        for request in requests:
            feed(request)
        began = time.perf_counter()
        drafter.draft(requests, [Fixed(length, informed=True)] * len(requests))
        took = time.perf_counter() - began
        token = draw.randrange(vocab)
        drafter.observe(requests, [Verdict(0, (token,))] * len(requests))
        for request in requests:
            request.tokens.append(token)
        return took

    feed = _feeder(drafter, target.model.config.hidden_size)
    requests = [made_up(2) for _ in range(MANY)]
    newcomers: list[Request] = []
    times: dict[tuple[int, int], list[float]] = {}
    reading: list[float] = []
    try:
        timed(requests, 1)  # the first pass allocates
        while not reading or (time.perf_counter() < deadline and len(reading) < 9):
            newcomers.append(made_up(READ))
            reading.append(timed(newcomers[-1:], 1))
            for count in (FEW, MANY):
                for length in (1, DEPTH):
                    times.setdefault((count, length), []).append(timed(requests[:count], length))
            timed(requests[FEW:], 1)  # all stand at the same place again
    finally:
        for request in [*requests, *newcomers]:
            drafter.end(request)
    # Asking n requests for a token, and for another.
    first = [median(times[n, 1]) for n in (FEW, MANY)]
    another = [
        max(0.0, median(times[n, DEPTH]) - asking) / (DEPTH - 1)
        for n, asking in zip((FEW, MANY), first, strict=True)
    ]
    each = max(0.0, another[1] - another[0]) / (MANY - FEW)
    fixed = max(0.0, another[0] - FEW * each)
    asking = max(0.0, first[1] - fixed - MANY * each) / MANY
    catch_up = max(0.0, median(reading) - first[0]) / (READ - 1)
    return DraftCost(fixed, each, asking, catch_up)


def _feeder(drafter: Drafter, hidden: int) -> Callable[[Request], None]:
    """Gives a drafter that reads states made-up ones, of all tokens but the request's last."""
    if not isinstance(drafter, StateReader):
        return lambda request: None
    reader, known = drafter, dict[Request, int]()

    def feed(request: Request) -> None:
        first = known.get(request, 0)
        known[request] = len(request.tokens) - 1
        states = torch.zeros(known[request] - first, len(reader.state_layers) * hidden)
        reader.read(request, first, states)

    return feed
