"""Passes of many rows over those of one, and tokens a second, of a model that people run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from statistics import median

from benchmarks.decoding import Bench
from benchmarks.gpu.card import Card
from benchmarks.gpu.drawn import drawn_engine, read_by_a_token
from benchmarks.gpu.report import Finding
from benchmarks.gpu.sizes import Sizes
from benchmarks.random_models import MIXES
from benchmarks.synthetic import always
from outrider.drafting.chain import Chain
from outrider.engine.profile import TargetTimer

ACCEPTANCE = 0.7
COST = 0.02  # of a drafted token, in steps of the target: a head's


def decoding(card: Card, sizes: Sizes, mix: str) -> Iterator[Finding]:
    """The large model in a mix of formats. bytes: that a token reads; pass: milliseconds by rows; batch N:
    tokens a second of the target alone and with drafts, which are accepted at the rate `ACCEPTANCE` and cost
    the share `COST` of a step."""
    most = max(sizes.batches)
    engine = drawn_engine(
        sizes.large,
        MIXES[mix],
        card.name,
        max_num_seqs=most,
        max_num_batched_tokens=sizes.max_rows,
        max_model_len=sizes.prompt + sizes.tokens,
        kv_cache_memory=sizes.cache,
        enable_prefix_caching=False,
    )
    yield "weights", mix
    yield "bytes", read_by_a_token(engine)
    timer = TargetTimer(
        engine.target, max_rows=max(sizes.timed), max_model_len=engine.max_model_len, clock=card.clock
    )
    taken: dict[int, list[float]] = {rows: [] for rows in sizes.timed}
    draw = random.Random(0)
    with timer.ready():
        for rows in sizes.timed:
            timer.seconds(rows)  # compiles
        for _ in range(sizes.rounds):
            for rows in draw.sample(sizes.timed, len(sizes.timed)):
                taken[rows].append(1e3 * timer.seconds(rows))
    yield "pass", {str(rows): median(times) for rows, times in taken.items()}
    bench = Bench(engine, max_rows=sizes.max_rows)
    vocab = engine.target.model.config.vocab_size
    for batch in sizes.batches:
        prompts = [[draw.randrange(vocab) for _ in range(sizes.prompt)] for _ in range(batch)]
        step = bench.record(prompts, sizes.tokens)
        found = {"plain": batch / step}
        yield f"batch {batch}", found
        drafter = bench.drafter(always(ACCEPTANCE), COST, batch, step)
        chain, auto = Chain([drafter]), bench.auto(drafter)
        bench.decode(chain, auto, prompts, sizes.tokens)  # learns
        decoded = bench.decode(chain, auto, prompts, sizes.tokens)
        bench.check(prompts, decoded)
        yield f"batch {batch}", found | {"auto": decoded.rate}
