"""Random cases of native operations. A case is a number, which decides all of it.

`python -m tests.fuzz.native_cases FIRST SECONDS FILE` runs cases from FIRST on until the time is over, at
least one, and prints how many; FILE holds the number of the case that runs, for whoever finds the process
dead.
"""

from __future__ import annotations

import math
import os
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.fuzz.hostile import hostile
from tests.ops import choosing
from tests.ops.drafts import KINDS as DRAFTERS
from tests.ops.drafts import random_drafts
from tests.ops.matrices import Stored
from tests.ops.native import (
    FORMATS,
    INSTRUCTION_SETS,
    as_computed,
    native,
    pack,
    random_weight,
    threads,
)
from tests.ops.native import (
    exact as exact_of,
)
from tests.ops.oracle import Array, Attention, Rope
from tests.ops.programs import Layer, Piece, numbers, rounded
from tests.ops.test_program_attention import chunked

MOST_THREADS = 3


def some_tensor(draw: random.Random, *shape: int) -> Tensor:
    """float32, of very different magnitudes from row to row."""
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    scales = torch.logspace(draw.uniform(-6, 0), draw.uniform(0, 6), shape[0])
    return torch.randn(shape, generator=generator) * scales.view(-1, *[1] * (len(shape) - 1))


@dataclass(frozen=True)
class Operation:
    """One operation of a chain: how it is recorded, and how far a result is from the exact one.

    error: (what it reads, what it wrote) -> of the sum of the magnitudes that were added up.
    """

    record: Callable[[Any, int], int]
    error: Callable[[Tensor, Tensor], float]


def linear(draw: random.Random, width: int) -> tuple[Operation, int]:
    """One to three weights side by side, with or without bias, residual and scale."""
    sizes = [draw.choice((1, 5, 16, 17, 33, 70)) for _ in range(draw.randint(1, 3))]
    weights = [random_weight(n, width, draw.choice(FORMATS), draw.getrandbits(16)) for n in sizes]
    biases = [some_tensor(draw, n) if draw.random() < 0.4 else None for n in sizes]
    packed = [pack(weight, bias=bias) for weight, bias in zip(weights, biases, strict=True)]
    residual = draw.random() < 0.3 and sum(sizes) == width
    scale = draw.choice((1.0, 1.0, 0.25, -3.0))

    def error(x: Tensor, y: Tensor) -> float:
        added = x.double() if residual else torch.zeros(len(x), sum(sizes), dtype=torch.float64)
        first, errors = 0, []
        for weight, bias in zip(weights, biases, strict=True):
            part = slice(first, first := first + weight.outputs)
            b = torch.zeros(weight.outputs) if bias is None else bias
            inputs = as_computed(x, weight.format)
            exact = scale * (inputs @ exact_of(weight).T + b) + added[:, part]
            room = abs(scale) * (inputs.abs() @ magnitudes(weight) + b.abs()) + added[:, part].abs()
            errors.append(worst(y[:, part], exact, room))
        return max(errors, key=lambda error: (math.isnan(error), error))

    return Operation(lambda p, x: p.linear(x, packed, x if residual else None, scale), error), sum(sizes)


def magnitudes(weight: Stored) -> Tensor:
    """float64 [in, out]: of what is added up for each weight. A scale and a minimum may nearly cancel."""
    return torch.from_numpy(weight.magnitudes()).double().T


def worst(y: Tensor, exact: Tensor, room: Tensor) -> float:
    """The largest error, of the sum of the magnitudes in `room`; NaN where a result is. What float32 cannot
    add up is left out, and so is what was not finite before."""
    error = ((y.double() - exact).abs() / (room + 1e-30))[room < 1e37]
    return float(error.max()) if len(error) else 0.0


def same(a: Tensor, b: Tensor) -> bool:
    """To the last bit; any NaN is like any other."""
    return a.shape == b.shape and bool(
        ((a.view(torch.int32) == b.view(torch.int32)) | (a.isnan() & b.isnan())).all()
    )


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
}


def gated(draw: random.Random, width: int) -> tuple[Operation, int]:
    size, name = draw.choice((1, 16, 23, 70)), draw.choice(tuple(ACTIVATIONS))
    gate, up = (random_weight(size, width, draw.choice(FORMATS), draw.getrandbits(16)) for _ in range(2))
    a, b = pack(gate), pack(up)

    def error(x: Tensor, y: Tensor) -> float:
        g, u = (as_computed(x, w.format) @ exact_of(w).T for w in (gate, up))
        # An activation multiplies an error of its argument by its slope, 1.13 at most, and is no larger.
        of_g, of_u = (as_computed(x, w.format).abs() @ magnitudes(w) for w in (gate, up))
        active = ACTIVATIONS[name](g)
        room = of_g * u.abs() + of_u * active.abs()
        room = room.masked_fill(torch.maximum(of_g, of_u) > 1e37, torch.inf)
        return worst(y, active * u, room) / 4

    return Operation(lambda p, x: p.gated(x, [a], [b], name), error), size


def norm(draw: random.Random, width: int) -> tuple[Operation, int]:
    weight, eps = torch.randn(width, generator=torch.Generator().manual_seed(draw.getrandbits(32))), 1e-5
    residual = draw.random() < 0.3

    def error(x: Tensor, y: Tensor) -> float:
        squares = x.double().pow(2).sum(dim=1, keepdim=True).float()  # beyond float32: infinite, the norm 0
        exact = x.double() / (squares.double() / width + eps).sqrt() * weight.double()
        added = x.double() if residual else torch.zeros(1, dtype=torch.float64)
        return worst(y, exact + added, exact.abs() + added.abs())

    return Operation(lambda p, x: p.norm(x, weight, eps, x if residual else None), error), width


def soft_cap(draw: random.Random, width: int) -> tuple[Operation, int]:
    cap = draw.choice((0.5, 30.0))

    def error(x: Tensor, y: Tensor) -> float:
        exact = cap * (x.double() / cap).tanh()
        return worst(y, exact, exact.abs())

    return Operation(lambda p, x: p.soft_cap(x, cap), error), width


@dataclass(frozen=True)
class Recorded:
    """A chain of operations as a program. kept: what each of them read and wrote is handed out too."""

    program: Any
    widths: list[int]

    def run(self, x: Tensor, spans: list[tuple[int, int]], *, kept: bool) -> tuple[Tensor, list[Tensor]]:
        """spans: rows and logit rows of each."""
        room = torch.empty(len(x), sum(self.widths)) if kept else None
        rows, logit_rows = [n for n, _ in spans], [n for _, n in spans]
        given: tuple[Any, ...] = (
            [0] * len(x),
            [0] * len(spans),
            rows,
            [[]] * len(spans),
            logit_rows,
            x,
            room,
        )
        out = torch.from_numpy(self.program.run(*given))
        ends = pairwise(accumulate(self.widths, initial=0))
        return out, [] if room is None else [room[:, first:last] for first, last in ends]


def chain(draw: random.Random) -> None:
    """A few operations one after the other: each against float64, fused or not, for any rows and threads."""
    width = draw.choice((1, 3, 16, 31, 33, 64, 80, 140))
    x, widths, operations = some_tensor(draw, draw.randint(1, 40), width), [width], []
    for _ in range(draw.randint(1, 5)):
        operation, width = draw.choice((linear, linear, gated, norm, soft_cap))(draw, width)
        operations.append(operation)
        widths.append(width)
    select = draw.random() < 0.5
    name = draw.choice(INSTRUCTION_SETS)

    def recorded(kept: bool) -> Recorded:
        program = native.Program(threads(draw.randint(1, MOST_THREADS)), name)
        value = program.input(widths[0])
        for operation in operations:
            if kept:
                program.keep(value)
            value = operation.record(program, value)
        if kept:
            program.keep(value)
        program.output(program.select_logit_rows(value) if select else value)
        return Recorded(program, widths)

    cut = draw.randint(0, len(x))
    spans = [(n, draw.randint(0, n)) for n in (cut, len(x) - cut) if n]
    whole, values = recorded(kept=True).run(x, spans, kept=True)
    assert same(values[0], x)
    for operation, before, after in zip(operations, values, values[1:], strict=False):
        error = operation.error(before, after)
        assert error < 5e-6, error
    ends = [cut, len(x)] if cut else [len(x)]
    wanted = [i for end, (n, logits) in zip(ends, spans, strict=False) for i in range(end - logits, end)]
    assert same(whole, values[-1][wanted] if select else values[-1])
    fused = recorded(kept=False)
    assert same(fused.run(x, spans, kept=False)[0], whole)
    order = draw.sample(range(len(x)), draw.randint(1, len(x)))
    alone, _ = fused.run(x[order], [(len(order), len(order))], kept=False)
    assert same(alone, values[-1][order])


def attention(draw: random.Random) -> None:
    """Requests over scattered blocks, mixed in chunks: each row by definition, and as it is alone."""
    layer = some_layer(draw)
    texts = [
        numbers(draw.randint(1, 200), layer.attention.width, seed=draw.getrandbits(16))
        for _ in range(draw.randint(1, 3))
    ]
    blocks = sum(-(-len(x) // layer.block_size) for x in texts)
    mixed = replace(layer, blocks=blocks, seed=draw.getrandbits(16), tables={})
    waiting = [chunked(len(x), draw) for x in texts]
    rows: list[list[Array]] = [[] for _ in texts]
    while any(waiting):
        chosen = [i for i, chunks in enumerate(waiting) if chunks and draw.random() < 0.7]
        if chosen:
            pieces = [Piece(i, texts[i], *waiting[i].pop(0)) for i in chosen]
            for i, out in zip(chosen, mixed.run(pieces), strict=True):
                rows[i].append(out)
    for x, parts in zip(texts, rows, strict=True):
        alone = replace(layer, blocks=-(-len(x) // layer.block_size), seed=draw.getrandbits(16), tables={})
        whole = alone.whole(x)
        assert np.array_equal(np.concatenate(parts), whole)
        exact = layer.attention(x, *rounded(layer.kind))
        error = np.abs(whole - exact).max() / np.abs(x).max()
        assert error < (2e-5 if layer.kind == "float32" else 2e-2), error


def some_layer(draw: random.Random) -> Layer:
    kv_heads, head_dim = draw.randint(1, 3), draw.choice((2, 6, 16, 20, 64))
    heads = kv_heads * draw.randint(1, 5)
    pairs = draw.choice((0, head_dim // 4, head_dim // 2))
    inv_freq = np.float32(0.3) ** np.arange(pairs, dtype=np.float32)

    def norm(count: int) -> Array | None:
        size = draw.choice((0, 0, head_dim, count * head_dim))
        return numbers(size, seed=size) if size else None

    return Layer(
        Attention(
            heads,
            kv_heads,
            head_dim,
            draw.choice((head_dim**-0.5, 0.3)),
            Rope(inv_freq, draw.choice((1.0, 1.2)), draw.random() < 0.5) if pairs else None,
            window=draw.choice((1, 7, 40, None)),
            soft_cap=draw.choice((None, 3.0)),
            q_norm=norm(heads),
            k_norm=norm(kv_heads),
            sinks=draw.choice((None, numbers(heads))),
        ),
        draw.choice((1, 5, 16, 24, 32, 48)),
        draw.choice(("float32", "bfloat16", "int8")),
        draw.choice(INSTRUCTION_SETS),
        draw.randint(1, MOST_THREADS),
    )


def choice(draw: random.Random) -> None:
    """Small whole logits, whose masses are exact: what is kept, and what is chosen or why nothing is."""
    vocab = draw.choice((1, 2, 63, 64, 65, 200, 1000))
    generator = np.random.default_rng(draw.getrandbits(32))
    logits = generator.integers(-6, 7, (draw.randint(1, 5), vocab)).astype(np.float32)
    for special in (-np.inf, -np.inf, np.nan, np.inf):
        if draw.random() < 0.3:
            logits[draw.randrange(len(logits)), draw.randrange(vocab)] = special
    filters = choosing.Filters(
        draw.choice((0.5, 1.0, 4.0)),
        draw.choice((0.0, 5e-324, 0.1, 1.0)),
        draw.choice((0, 0, 1, 3, 70, 2**31 - 1)),
        draw.choice((1.0, 5e-324, 0.25, 0.3, 0.75, 0.9, 1 - 2.0**-53)),
    )
    name, key, position = draw.choice(INSTRUCTION_SETS), draw.getrandbits(64), draw.randint(0, 99)
    barred = choosing.bar(draw.sample(range(vocab), draw.randint(0, vocab // 2)))
    edits = [[barred] if draw.random() < 0.5 else [] for _ in logits]
    wanted = choosing.choice(len(logits), filters, key, position, edits)
    rows = [choosing.edited(row, changes) for row, changes in zip(logits, edits, strict=True)]
    scores = [filters.scores(row) for row in rows]
    assert np.array_equal(native.scores(logits, wanted, name), scores, equal_nan=True)
    tokens = chosen(logits, wanted, name, draw.randint(1, MOST_THREADS))
    for i, (row, token) in enumerate(zip(rows, tokens, strict=True)):
        values = scores[i] + choosing.gumbel(key, position + i, vocab)
        reason = choosing.why_none(row)
        assert token == reason if reason else values[token] >= values.max() - 1e-4
    greedy = chosen(logits, choosing.choice(len(logits), edits=edits), name, 1)
    assert greedy == [choosing.chosen(row, None, 0, 0) for row in rows]


def chosen(logits: Array, wanted: Any, instruction_set: str, threads: int) -> list[int]:
    return choosing.tokens_of(logits, wanted, instruction_set=instruction_set, threads=threads)


def drafting(draw: random.Random) -> None:
    """Drafts in one call, each as it is alone and a token at a time."""
    random_drafts(draw, draw.choice(DRAFTERS))


KINDS: tuple[Callable[[random.Random], None], ...] = (chain, chain, attention, choice, drafting, hostile)


def case(number: int) -> None:
    """Raises AssertionError for a wrong result."""
    draw = random.Random(number)
    try:
        draw.choice(KINDS)(draw)
    except Exception as error:
        error.add_note(f'case {number}: python -c "from tests.fuzz.native_cases import case; case({number})"')
        raise


def run(first: int, seconds: float, at: Path | None = None) -> int:
    """How many cases ran. at: a file that is told which of them runs."""
    file = None if at is None else os.open(at, os.O_WRONLY | os.O_CREAT)
    end = time.monotonic() + seconds
    for done in count(1):
        if file is not None:
            os.pwrite(file, f"{first + done - 1}\n".encode(), 0)
        case(first + done - 1)
        if time.monotonic() >= end:
            return done
    raise AssertionError


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(f"{run(int(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))}\n")
