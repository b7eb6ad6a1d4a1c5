"""Calls of native functions with arguments that nothing of ours would pass: an exception, or a result."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.ops.choosing import Filters, Price
from tests.ops.drafts import KINDS, Drafter, Wanted, some_texts
from tests.ops.native import FORMATS, INSTRUCTION_SETS, native, pack, random_weight, threads

WIDTH = 32
LAYER = [4, 2, 8, 0.3]  # heads, kv_heads, head_dim, scale; q is as wide as WIDTH
NUMBERS: tuple[Any, ...] = (
    None, -1, 0, 1, 2, 33, 2**24 + 1, 2**30, 2**31 - 1, 2**31, -(2**31), 2**63, 2**64, -(2**63) - 1,
    0.5, -0.0, 1e-45, 1e300, float("nan"), float("inf"), -float("inf"), True, "x", b"", object(), [], [None],
)  # fmt: skip
REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError, OverflowError, BufferError)


def damaged_array(draw: random.Random, x: Tensor) -> Any:
    """The array with another type, shape or layout, or of another kind."""
    ways: tuple[Callable[[], Any], ...] = (
        lambda: x.double(),
        lambda: x.to(torch.bfloat16),
        lambda: x.to(torch.int64),
        lambda: x.to(torch.complex64),
        lambda: x.bool(),
        lambda: x.mT if x.ndim > 1 else x[None],
        lambda: x[..., ::2],
        lambda: x[1:],
        lambda: x[:0],
        lambda: x[..., :0],
        lambda: x[0],
        lambda: x.flatten(),
        lambda: x[None],
        lambda: x.to("meta"),
        lambda: x.to_sparse(),
        lambda: x.requires_grad_() if x.is_floating_point() else x,
        lambda: torch.cat([x, x]),
        lambda: x.expand(2, *x.shape),
        lambda: torch.full_like(x, torch.nan) if x.is_floating_point() else x,
        lambda: _frozen(x),
        lambda: np.array([None]),
        lambda: np.zeros(x.shape, ">f4"),
        lambda: np.zeros(4 * x.numel() + 1, np.uint8)[1:].view(np.float32).reshape(x.shape),
        lambda: x.tolist(),
    )
    return draw.choice(ways)()


def _frozen(x: Tensor) -> Any:
    array = x.float().numpy().copy()
    array.flags.writeable = False
    return array


def damaged(draw: random.Random, value: Any) -> Any:
    """A value of the same kind that is wrong, or one of another kind."""
    if draw.random() < 0.3:
        return draw.choice(NUMBERS)
    if isinstance(value, Tensor):
        return damaged_array(draw, value.clone())
    if isinstance(value, tuple):
        at = draw.randrange(len(value))
        return (*value[:at], damaged(draw, value[at]), *value[at + 1 :])
    if isinstance(value, list):
        at = draw.randint(0, len(value))
        inner = damaged(draw, draw.choice(value)) if value else draw.choice(NUMBERS)
        return draw.choice((value[:at], [*value, inner], [*value[:at], inner, *value[at + 1 :]], value * 3))
    return draw.choice(NUMBERS)


def some_weight(draw: random.Random, outputs: int = WIDTH) -> Any:
    return pack(random_weight(outputs, WIDTH, draw.choice(FORMATS), draw.getrandbits(8)))


def a_program(draw: random.Random) -> Any:
    return native.Program(threads(2), draw.choice(INSTRUCTION_SETS))


def a_cache() -> tuple[Tensor, Tensor]:
    return torch.zeros(3, 2, 8, 16), torch.zeros(3, 2, 16, 8)


def attend(program: Any, x: int, keys: Any, values: Any, *layer: Any) -> Any:
    names = (
        "heads", "kv_heads", "head_dim", "scale", "rope", "window", "soft_cap", "q_norm", "k_norm",
        "norm_eps", "sinks", "group",
    )  # fmt: skip
    return program.attend(x, keys, values, **dict(zip(names, layer, strict=False)))


def experts(program: Any, x: int, scores: int, *given: Any) -> Any:
    names = ("count", "chosen", "activation", "scoring", "normalised", "factor", "bias", "residual", "scale")
    return program.experts(x, scores, *given[:3], **dict(zip(names, given[3:], strict=False)))


def made(draw: random.Random) -> None:
    """What is called without a program."""
    logits, name = torch.randn(2, 70), draw.choice(INSTRUCTION_SETS)
    weight = random_weight(5, 40, draw.choice(FORMATS), 1)
    how: list[Any] = [0.7, 0.1, 5, 0.9, name]
    ids, wanted = torch.arange(3), a_choice(2)
    calls: tuple[tuple[Callable[..., Any], list[Any]], ...] = (
        (native.Threads, [2]),
        (native.Program, [threads(1), name]),
        (
            native.Matrix.pack,
            [
                threads(1),
                weight.format,
                [(torch.from_numpy(weight.data), None)],
                40,
                torch.arange(40).int(),
                torch.zeros(5),
            ],
        ),
        (native.Matrix.bytes_of, [weight.format, 5, 40]),
        (native.Filters, how[:4]),
        (native.Change.bar, [ids]),
        (native.Change.allow, [torch.arange(70) > 5]),
        (native.Change.add, [ids, torch.ones(3)]),
        (native.Change.penalise, [ids, 1.5]),
        (native.Choice, [1, 2, native.Filters(*how[:4]), 5, 6, [[native.Change.bar(ids.numpy())], []]]),
        (native.Price, [0.1, 0.1, 2, [0.5, 0.7], [0.9]]),
        (native.Lane, [wanted, 3, [1, 2], native.Price(0.1, 0.1, 2, [0.5], []), True, False, [1, 2]]),
        (native.ranked, [logits[0], 3, 5, name]),
        (native.scores, [logits, wanted, name]),
    )
    attempt(draw, *draw.choice(calls))


def a_choice(rows: int) -> Any:
    """A choice from rows of which the first is edited."""
    edits = [[native.Change.bar(np.arange(3))], *[[]] * (rows - 1)]
    return native.Choice(0, rows, native.Filters(0.7, 0.1, 5, 0.9), 2**63, -5, edits)


def recorded(draw: random.Random) -> None:
    """An operation of a program. What it accepts has to run."""
    program, (keys, values) = a_program(draw), a_cache()
    x = program.input(draw.choice((WIDTH, 64)))
    rope = program.rope(torch.ones(2))
    layer: list[Any] = [rope, 20, 5.0, torch.ones(8), torch.ones(16), 1e-5, torch.zeros(4), 0]
    stacks = [some_weight(draw, WIDTH * WIDTH)] * 3  # of as many experts as x has columns
    mixed: list[Any] = [WIDTH, 3, "silu", "sigmoid", True, 1.0, torch.zeros(WIDTH), x, 0.5]
    calls: tuple[tuple[Callable[..., Any], list[Any]], ...] = (
        (program.input, [WIDTH]),
        (program.rope, [torch.ones(3), 1.5, True]),
        (program.embed, [some_weight(draw), 3.0]),
        (program.norm, [x, torch.randn(WIDTH), 1e-5, None]),
        (program.norm, [x, torch.randn(WIDTH), 1e-5, x]),
        (program.norm_heads, [x, torch.randn(WIDTH), 4, 1e-5]),
        (program.linear, [x, [some_weight(draw), some_weight(draw, 7)], None]),
        (program.linear, [x, [some_weight(draw)], x, 0.5]),
        (program.gated, [x, [some_weight(draw)], [some_weight(draw)], "silu"]),
        (partial(experts, program), [x, x, *stacks, *mixed]),
        (partial(attend, program), [x, keys, values, *LAYER, *layer]),
        (program.soft_cap, [x, 30.0]),
        (program.select_logit_rows, [x]),
        (program.keep, [x]),
        (program.output, [x]),
    )
    results = [attempt(draw, *draw.choice(calls)) for _ in range(draw.randint(1, 4))]
    last = [value for value in results if isinstance(value, int)]
    given = torch.randn(3, WIDTH)
    attempt(draw, program.output, last[-1:], damage=False)
    room = torch.empty(3, program.kept_width) if program.kept_width < 2**20 else None
    attempt(draw, program.run, [[0, 1, 2], [0], [3], [[[2]]], [1], given, room], damage=False)


def ran(draw: random.Random) -> None:
    """A run of a program, which is as good as before after one that was refused."""
    program, (keys, values) = a_program(draw), a_cache()
    rope = program.rope(torch.full((4,), 0.5))
    seen = attend(program, program.input(64), keys, values, *LAYER, rope, 100)
    program.keep(seen)
    program.output(program.linear(seen, [some_weight(draw)], seen))
    good: list[Any] = [
        [0] * 5,
        [0, 14],
        [2, 3],
        [[[2]], [[0, 1]]],
        [0, 1],
        torch.randn(5, 64),
        torch.zeros(5, 32),
    ]
    before = program.run(*good).copy()
    for _ in range(5):
        attempt(draw, program.run, good)
    keys.zero_(), values.zero_()
    after = program.run(*good)
    assert np.array_equal(after[:2], before[:2])  # the second span reads positions that others wrote


def stepped(draw: random.Random) -> None:
    """A step, in the same way."""
    program = a_program(draw)
    seen = program.input(64)
    program.keep(seen)
    program.output(program.select_logit_rows(seen))
    wanted = a_choice(2)
    good: list[Any] = [[0] * 5, [0, 14], [2, 3], [[], []], [0, 2], [None, wanted]]
    good += [torch.randn(5, 64), torch.zeros(5, 64), None, None, True]
    tokens, logits = program.step(*good)
    for _ in range(5):
        attempt(draw, program.step, good)
    again = program.step(*good)
    assert again[0] == tokens
    assert np.array_equal(again[1], logits)


def drafted(draw: random.Random) -> None:
    """A draft, in the same way."""
    drafter = Drafter(draw.choice(KINDS), 90)
    text = some_texts(draw, 1, 60)[0]
    text.read = 0
    lane = Wanted(Filters(), 1, 2, 4, price=Price(0.0, 0.0, 0, [0.9], [0.9])).lane(text.slots[2:])
    rows, states = len(text.tokens), torch.from_numpy(text.target)
    good: list[Any] = [drafter.first, drafter.then, text.tokens, [0], [rows], [[text.blocks]], [lane]]
    good += [np.arange(60) + 7, 90, states if drafter.kind == "head" else None]
    good += [[-1], [text.new_states()]] if drafter.kind == "recurrent" else [None, None]
    [before] = native.draft(*good)
    for _ in range(5):
        attempt(draw, native.draft, good)
    assert native.draft(*good)[0].tokens == before.tokens


def attempt(
    draw: random.Random, call: Callable[..., Any], arguments: list[Any], *, damage: bool = True
) -> Any:
    """The call's result, or None where it is refused. damage: one or two of the arguments are."""
    given = list(arguments)
    for at in draw.sample(range(len(given)), min(len(given), draw.randint(1, 2)) if damage else 0):
        given[at] = damaged(draw, given[at])
    try:
        return call(*given)
    except REFUSALS:
        return None


def hostile(draw: random.Random) -> None:
    for _ in range(20):
        draw.choice((made, recorded, ran, stepped, drafted))(draw)
