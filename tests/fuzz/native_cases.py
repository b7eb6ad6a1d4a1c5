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
from dataclasses import dataclass
from itertools import accumulate, count, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from outrider.quantization.weight import Weight
from outrider.sampling.distribution import NO_TOKEN, Categorical, Greedy, confidences
from outrider.sampling.filters import Filters
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import Spot, SpotDraw
from tests.fuzz.hostile import hostile
from tests.ops.native import (
    FORMATS,
    INSTRUCTION_SETS,
    as_computed,
    native,
    pack,
    random_weight,
    threads,
)
from tests.ops.test_native_attention import Machine, Setting, by_definition, chunked, text

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
    """One to three weights side by side, with or without bias and residual."""
    sizes = [draw.choice((1, 5, 16, 17, 33, 70)) for _ in range(draw.randint(1, 3))]
    weights = [random_weight(n, width, draw.choice(FORMATS), draw.getrandbits(16)) for n in sizes]
    biases = [some_tensor(draw, n) if draw.random() < 0.4 else None for n in sizes]
    packed = [pack(weight, bias) for weight, bias in zip(weights, biases, strict=True)]
    residual = draw.random() < 0.3 and sum(sizes) == width

    def error(x: Tensor, y: Tensor) -> float:
        added = x.double() if residual else torch.zeros(len(x), sum(sizes), dtype=torch.float64)
        first, errors = 0, []
        for weight, bias in zip(weights, biases, strict=True):
            part = slice(first, first := first + weight.shape[0])
            b = torch.zeros(weight.shape[0]) if bias is None else bias
            inputs = as_computed(x, weight.format)
            exact = inputs @ weight.dequantize().double().T + b + added[:, part]
            room = inputs.abs() @ magnitudes(weight) + b.abs() + added[:, part].abs()
            errors.append(worst(y[:, part], exact, room))
        return max(errors, key=lambda error: (math.isnan(error), error))

    return Operation(lambda p, x: p.linear(x, packed, x if residual else None), error), sum(sizes)


def magnitudes(weight: Weight) -> Tensor:
    """float64 [in, out]: of what is added up for each weight. A scale and a minimum may nearly cancel."""
    parts = (
        Weight(weight.format, weight.values, weight.scales, weight.mins.abs())
        if weight.mins is not None
        else weight
    )
    return parts.dequantize().double().abs().T


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


def gated(draw: random.Random, width: int) -> tuple[Operation, int]:
    size, format = draw.choice((1, 16, 23, 70)), draw.choice(FORMATS)
    gate, up = (random_weight(size, width, format, draw.getrandbits(16)) for _ in range(2))
    a, b = pack(gate), pack(up)

    def error(x: Tensor, y: Tensor) -> float:
        inputs = as_computed(x, format)
        g, u = (inputs @ w.dequantize().double().T for w in (gate, up))
        # silu multiplies an error of its argument by its slope, 1.1 at most, and is no larger than it.
        of_g, of_u = (inputs.abs() @ magnitudes(w) for w in (gate, up))
        room = of_g * u.abs() + of_u * (g * torch.sigmoid(g)).abs()
        room = room.masked_fill(torch.maximum(of_g, of_u) > 1e37, torch.inf)
        return worst(y, g * torch.sigmoid(g) * u, room) / 4

    return Operation(lambda p, x: p.gated(x, a, b), error), size


def norm(draw: random.Random, width: int) -> tuple[Operation, int]:
    weight, eps = torch.randn(width, generator=torch.Generator().manual_seed(draw.getrandbits(32))), 1e-5

    def error(x: Tensor, y: Tensor) -> float:
        squares = x.double().pow(2).sum(dim=1, keepdim=True).float()  # beyond float32: infinite, the norm 0
        exact = x.double() / (squares.double() / width + eps).sqrt() * weight.double()
        return worst(y, exact, exact.abs())

    return Operation(lambda p, x: p.rms_norm(x, weight, eps), error), width


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
        operation, width = draw.choice((linear, linear, gated, norm))(draw, width)
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
    kv_heads = draw.randint(1, 3)
    setting = Setting(
        heads=kv_heads * draw.randint(1, 5),
        kv_heads=kv_heads,
        head_dim=draw.choice((2, 6, 16, 20, 64)),
        window=draw.choice((1, 7, 40, 10**6)),
        block_size=draw.choice((1, 5, 16, 24, 32, 48)),
        dtype=draw.choice((torch.float32, torch.bfloat16)),
        instruction_set=draw.choice(INSTRUCTION_SETS),
        threads=draw.randint(1, MOST_THREADS),
    )
    texts = [text(setting, draw.randint(1, 200), draw.getrandbits(16)) for _ in range(draw.randint(1, 3))]
    blocks = sum(-(-len(t) // setting.block_size) for t in texts)
    mixed = Machine(setting, 2 * blocks, draw.getrandbits(16))
    waiting = [chunked(len(t), draw) for t in texts]
    rows: list[list[Tensor]] = [[] for _ in texts]
    while any(waiting):
        chosen = [i for i, chunks in enumerate(waiting) if chunks and draw.random() < 0.7]
        if chosen:
            spans = [(i, texts[i], *waiting[i].pop(0)) for i in chosen]
            for i, out in zip(chosen, mixed.run(spans), strict=True):
                rows[i].append(out)
    for t, parts in zip(texts, rows, strict=True):
        alone = Machine(setting, -(-len(t) // setting.block_size), draw.getrandbits(16))
        (whole,) = alone.run([(0, t, 0, len(t))])
        assert torch.equal(torch.cat(parts), whole)
        error = (whole.double() - by_definition(setting, t)).abs().max() / t.qkv.abs().max()
        assert error < (1e-5 if setting.dtype == torch.float32 else 2e-2), error


def choice(draw: random.Random) -> None:
    """Small whole logits, whose masses are exact: what is kept, chosen, largest, and how sure."""
    vocab = draw.choice((1, 2, 63, 64, 65, 200, 1000))
    generator = torch.Generator().manual_seed(draw.getrandbits(32))
    logits = torch.randint(-6, 7, (draw.randint(1, 5), vocab), generator=generator).float()
    for special in (-torch.inf, -torch.inf, torch.nan, torch.inf):
        if draw.random() < 0.3:
            logits[draw.randrange(len(logits)), draw.randrange(vocab)] = special
    filters = Filters(
        draw.choice((0.5, 1.0, 4.0)),
        draw.choice((0.0, 5e-324, 0.1, 1.0)),
        draw.choice((0, 0, 1, 3, 70, 2**31 - 1)),
        draw.choice((1.0, 5e-324, 0.25, 0.3, 0.75, 0.9, 1 - 2.0**-53)),
    )
    name, spot = draw.choice(INSTRUCTION_SETS), Spot(Noise(draw.getrandbits(63)), draw.randint(0, 99))
    how = (filters.temperature, filters.min_p, filters.top_k, filters.top_p, name)
    scores = filters.scores(logits)
    kept = torch.from_numpy(native.filtered(logits, *how))
    assert torch.equal(
        Categorical(kept).probabilities().nan_to_num(-1), Categorical(scores).probabilities().nan_to_num(-1)
    )
    noise = SpotDraw(spot, Stream.TOKEN)
    chosen = native.choose(logits, noise.keys(len(logits)), None, *how)
    rows, vocab = logits.shape
    values = scores + noise(rows, vocab, logits.device)
    for row, token in enumerate(chosen):
        assert (token == NO_TOKEN) == (not values[row].max().isfinite())
        assert token == NO_TOKEN or values[row, token] >= values[row].max() - 1e-4
    assert native.largest(logits, name) == Greedy(logits).choose(noise)
    sure = native.confidences(logits, name)
    assert all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(sure, confidences(logits), strict=True))


KINDS: tuple[Callable[[random.Random], None], ...] = (chain, chain, attention, choice, hostile)


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
