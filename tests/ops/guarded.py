"""Native kernels on arrays next to a page that cannot be read: reading beyond an array kills the process.

`python -m tests.ops.guarded` runs each check in a child process and prints its name and how it ended, a line
each. AddressSanitizer does not see masked loads and those of AMX tiles; a page stops every load.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from tests.ops.native import FORMATS, INSTRUCTION_SETS, native, one_op, random_weight

Side = Literal["end", "start"]
PAGE = mmap.PAGESIZE
PROT_NONE = 0


def guarded(array: np.ndarray[Any, Any], side: Side, beyond: int = 0) -> np.ndarray[Any, Any]:
    """A copy that ends where an unreadable page begins, or begins where one ends.

    beyond: elements by which the array reaches into the page after it; nothing is copied then.
    """
    pages = -(-array.nbytes // PAGE) * PAGE
    memory = mmap.mmap(-1, pages + 2 * PAGE)
    whole = np.frombuffer(memory, np.uint8)
    for at in (0, PAGE + pages):
        page = ctypes.c_void_p(whole.ctypes.data + at)
        if ctypes.CDLL(None).mprotect(page, ctypes.c_size_t(PAGE), PROT_NONE):
            raise OSError("mprotect failed")
    first = PAGE + (pages - array.nbytes if side == "end" else 0) + beyond * array.itemsize
    copy: np.ndarray[Any, Any] = whole[first : first + array.nbytes].view(array.dtype).reshape(array.shape)
    if not beyond:
        copy[...] = array
    return copy


def guarded_tensor(x: Tensor, side: Side, beyond: int = 0) -> Tensor:
    bits = x.view(torch.int16) if x.dtype == torch.bfloat16 else x  # NumPy has no bfloat16
    return torch.from_numpy(guarded(bits.contiguous().numpy(), side, beyond)).view(x.dtype)


def packed(format: str, outputs: int, inputs: int, side: Side, beyond: int = 0) -> Any:
    weight = random_weight(outputs, inputs, format)
    rows = guarded(weight.data, side, beyond)
    bias = guarded_tensor(torch.randn(outputs), side)
    return native.Matrix.pack(native.Threads(1), format, [(rows, None)], inputs, bias=bias)


def check_linear(instruction_set: str, side: Side) -> None:
    for format in FORMATS:
        for outputs, inputs in ((1, 1), (5, 33), (43, 80), (16, 96), (17, 577)):
            weight = packed(format, outputs, inputs, side)

            def record(p: Any, x: int, weight: Any = weight) -> int:
                return int(p.linear(x, [weight], p.gated(x, [weight], [weight], "gelu")))

            layer = one_op(inputs, record, instruction_set)
            for rows in (1, 2, 5, 17, 33):
                layer(guarded_tensor(torch.randn(rows, inputs), side))


def check_embed(instruction_set: str, side: Side) -> None:
    for format in FORMATS:
        for outputs, inputs in ((1, 1), (43, 80), (17, 577)):
            program = native.Program(native.Threads(1), instruction_set)
            program.output(program.embed(packed(format, outputs, inputs, side)))
            program.run([0, outputs - 1], [0], [2], [[]], [0])


def check_norm(instruction_set: str, side: Side) -> None:
    for width in (1, 3, 16, 17, 577):
        weight = guarded_tensor(torch.randn(width), side)

        def record(p: Any, x: int, weight: Tensor = weight) -> int:
            return int(p.norm(x, weight, 0.1, x))

        one_op(width, record, instruction_set)(guarded_tensor(torch.randn(5, width), side))


def attend(
    instruction_set: str,
    side: Side,
    dtype: torch.dtype,
    head_dim: int,
    block_size: int,
    window: int,
    beyond: dict[str, int] | None = None,
) -> None:
    """43 positions over a cache of just the blocks that they need, the last ones row by row."""
    heads, kv_heads, length = 6, 2, 43
    blocks = -(-length // block_size)
    shift = {"keys": 0, "values": 0} | (beyond or {})
    cache = torch.zeros(blocks, kv_heads, head_dim, block_size, dtype=dtype)
    keys = guarded_tensor(cache, side, shift["keys"])
    values = guarded_tensor(cache.view(blocks, kv_heads, block_size, head_dim), side, shift["values"])
    width = (heads + 2 * kv_heads) * head_dim
    program = native.Program(native.Threads(1), instruction_set)
    vectors = {name: guarded_tensor(torch.ones(head_dim), side) for name in ("q_norm", "k_norm")}
    program.output(
        program.attend(
            program.input(width),
            keys,
            values,
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
            scale=0.3,
            rope=program.rope(guarded_tensor(torch.full((head_dim // 2,), 0.5), side)),
            window=window,
            soft_cap=5.0,
            sinks=guarded_tensor(torch.zeros(heads), side),
            **vectors,
        )
    )
    table = list(reversed(range(blocks)))
    for start, rows in ((0, 40), (40, 1), (41, 2)):
        for order in (table, table[::-1]):  # the last position is in the first block, and in the last
            x = guarded_tensor(torch.randn(rows, width), side)
            program.run([0] * rows, [start], [rows], [[order]], [0], x)


def check_experts(instruction_set: str, side: Side) -> None:
    for format in FORMATS:
        for inputs in (1, 33, 80):
            gates, downs = packed(format, 5 * 16, inputs, side), packed(format, 5 * 32, 16, side)
            router = packed("F32", 5, inputs, side)

            def record(p: Any, x: int, gates: Any = gates, downs: Any = downs, router: Any = router) -> int:
                scores = p.linear(x, [router])
                return int(p.experts(x, scores, gates, gates, downs, count=5, chosen=3, activation="silu"))

            layer = one_op(inputs, record, instruction_set)
            for rows in (1, 2, 17, 33):
                layer(guarded_tensor(torch.randn(rows, inputs), side))


def check_soft_cap(instruction_set: str, side: Side) -> None:
    for width in (1, 3, 16, 17, 577):
        capped = one_op(width, lambda p, x: p.soft_cap(x, 5.0), instruction_set)
        capped(guarded_tensor(torch.randn(5, width), side))


def check_multiply(instruction_set: str, side: Side) -> None:
    for width in (1, 3, 16, 17, 577):
        squared = one_op(width, lambda p, x: p.multiply(x, x, "silu"), instruction_set)
        squared(guarded_tensor(torch.randn(5, width), side))


def check_attention(instruction_set: str, side: Side) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        for head_dim, block_size in ((2, 5), (6, 16), (20, 1), (64, 24), (16, 32)):
            for window in (7, 1000):
                attend(instruction_set, side, dtype, head_dim, block_size, window)


def check_choice(side: Side) -> None:
    """With the best instruction set, which is the one that is used."""
    name = INSTRUCTION_SETS[0]
    for vocab in (1, 5, 63, 65, 1001):
        logits = guarded(np.random.default_rng(0).normal(size=(3, vocab)).astype(np.float32), side)
        native.ranked(guarded(logits[0], side), 0, 9, name)
        native.scores(logits, native.Choice(0, 3, None, 1, 0), name)
        drafter = native.Program(native.Threads(1), name)
        table = native.Matrix.pack(native.Threads(1), "F32", [(logits.view(np.uint8), None)], vocab)
        drafter.output(drafter.select_logit_rows(drafter.embed(table)))
        words = guarded(np.arange(vocab) * 3, side)
        for top_k, top_p, min_p in ((0, 1.0, 0.0), (3, 1.0, 0.1), (0, 0.8, 0.0), (50, 0.9, 0.0)):
            wanted = native.Choice(0, 3, native.Filters(0.7, min_p, top_k, top_p), 1, 0)
            native.scores(logits, wanted, name)
            wanted = native.Choice(0, 1, native.Filters(0.7, min_p, top_k, top_p), 1, 0)
            lane = native.Lane(wanted, 1, [], None, True, True)
            native.draft(drafter, drafter, [1], [0], [1], [[]], [lane], words, 3 * vocab)


def read_beyond(what: str, instruction_set: str) -> None:
    """Kernels given an array of which the last element is in the page: they have to read it there."""
    x = torch.randn(3, 17)
    norm = one_op(17, lambda p, x: p.norm(x, torch.ones(17), 0.1), instruction_set)
    match what:
        case "input":
            norm(guarded_tensor(x, "end", beyond=1))
        case "weight":
            packed("Q6_K", 3, 512, "end", beyond=1)
        case "logits":
            wanted = native.Choice(0, 3, native.Filters(0.7, 0.0, 0, 1.0), 1, 0)
            native.scores(guarded_tensor(x, "end", beyond=1).numpy(), wanted, instruction_set)
        case _:
            attend(instruction_set, "end", torch.float32, 20, 5, 1000, beyond={what: 1})


OPERATIONS = (
    check_linear,
    check_embed,
    check_norm,
    check_experts,
    check_soft_cap,
    check_multiply,
    check_attention,
)
FAULTS = ("input", "weight", "logits", "keys", "values")


def checks() -> dict[str, Callable[[], None]]:
    """What has to end well, and with names that begin with `fault` what has to be killed."""
    found: dict[str, Callable[[], None]] = {}
    sides: tuple[Side, ...] = ("end", "start")
    for side in sides:
        found[f"choice {side}"] = partial(check_choice, side)
        for name in INSTRUCTION_SETS:
            for operation in OPERATIONS:
                found[f"{operation.__name__.removeprefix('check_')} {name} {side}"] = partial(
                    operation, name, side
                )
    for what in FAULTS:
        found[f"fault {what}"] = partial(read_beyond, what, INSTRUCTION_SETS[0])
    return found


def ending(check: Callable[[], None]) -> int:
    """How `check` ends in a child process: 0, 1 for an exception, or minus the number of a signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            check()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    torch.set_num_threads(1)  # its threads would not outlive a fork
    for name, check in checks().items():
        sys.stdout.write(f"{name}: {ending(check)}\n")
        sys.stdout.flush()
