"""Whether a row has the same bits in passes of any number of rows: a small model in each weight format."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.gpu.card import Card
from benchmarks.gpu.drawn import drawn_engine
from benchmarks.gpu.report import Finding
from benchmarks.gpu.sizes import Sizes
from benchmarks.random_models import MIXES
from outrider.formats.registry import FORMATS
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span

CHUNK = 64  # rows of a pass that only fills the cache


class Piece(NamedTuple):
    """Positions start..end of a request, by its number."""

    request: int
    start: int
    end: int


class Rows:
    """Requests with a context each, and what each of the `most` rows behind it gives in one pass."""

    def __init__(self, target: ModelRunner, requests: int, context: int, most: int) -> None:
        self.target, self.context, self.most = target, context, most
        self.draw = random.Random(0)
        vocab = target.model.config.vocab_size
        self.tokens = [[self.draw.randrange(vocab) for _ in range(context + most)] for _ in range(requests)]
        self.tables = [target.table() for _ in self.tokens]
        for number, table in enumerate(self.tables):
            while (start := table.filled) < context:
                end = min(context, start + CHUNK)
                table.extend(end)
                target.forward([self._span(Piece(number, start, end), 1)])
                table.settle(end)
            table.extend(context + most, most)
        self.wanted = [self._logits([Piece(n, context, context + most)]) for n in range(requests)]

    def same(self, count: int) -> bool:
        """Whether so many rows, of one request and of several, have bit for bit the logits that they had at
        first."""
        first = self.context + self.draw.randint(0, self.most - count)
        requests = range(len(self.tables))
        cuts = sorted(self.draw.choices(range(count + 1), k=len(requests) - 1))
        sizes = [last - start for start, last in zip([0, *cuts], [*cuts, count], strict=True)]
        apart = [Piece(n, first, first + size) for n, size in zip(requests, sizes, strict=True) if size]
        self.draw.shuffle(apart)
        together = [Piece(self.draw.choice(requests), first, first + count)]
        return self._as_at_first(together) and self._as_at_first(apart)

    def _as_at_first(self, pieces: Sequence[Piece]) -> bool:
        wanted = [self.wanted[n][start - self.context : end - self.context] for n, start, end in pieces]
        found, expected = self._logits(pieces), np.concatenate(wanted)
        return bool(np.array_equal(found.view(np.int32), expected.view(np.int32)))

    def _logits(self, pieces: Sequence[Piece]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return self.target.forward([self._span(piece, piece.end - piece.start) for piece in pieces])

    def _span(self, piece: Piece, logit_rows: int) -> Span:
        tokens = self.tokens[piece.request][piece.start : piece.end]
        return Span(tokens, piece.start, self.tables[piece.request].tables, logit_rows)


def rows(card: Card, sizes: Sizes) -> Iterator[Finding]:
    """For each format the numbers of rows with which any bit differs."""
    most = max(sizes.counts)
    for name in sizes.formats:
        engine = drawn_engine(
            sizes.small,
            MIXES["BF16"],
            card.name,
            formats=FORMATS[name],
            max_model_len=sizes.context + most,
            kv_cache_memory=sizes.cache,
            max_num_seqs=sizes.requests,
        )
        compared = Rows(engine.target, sizes.requests, sizes.context, most)
        differing = [count for count in sizes.counts if not compared.same(count)]
        yield name, {"counts": len(sizes.counts), "differing": differing}
