"""Threads of the native kernels: several pools and engines in one process, and quiet when idle."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import psutil
import pytest
import torch
from torch import Tensor

from outrider import SamplingParams
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.ops.native import INSTRUCTION_SETS, native, pack, random_weight

T = TypeVar("T")
WIDTH = 512  # a run takes long enough to meet another


def at_once(*calls: Callable[[], T]) -> list[T]:
    """What the calls return, each on a Python thread of its own, begun together."""
    start = Barrier(len(calls))

    def wait_and_call(call: Callable[[], T]) -> T:
        start.wait(timeout=60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(wait_and_call, calls))


def layers(pool: Any, seed: int) -> Callable[[Tensor], Tensor]:
    """Three linear layers and norms as one program on `pool`."""
    program = native.Program(pool, INSTRUCTION_SETS[0])
    value = program.input(WIDTH)
    for layer in range(3):
        weight = pack(random_weight(WIDTH, WIDTH, "int8", seed + layer))
        value = program.linear(program.rms_norm(value, torch.ones(WIDTH), 1e-5), [weight], value)
    program.output(value)

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(program.run([0] * len(x), [0], [len(x)], [[]], [0], x))

    return run


def repeated(run: Callable[[Tensor], Tensor], x: Tensor, times: int) -> Callable[[], Tensor]:
    return lambda: torch.cat([run(x[i % len(x) :]) for i in range(times)])


@pytest.mark.parametrize("shared", [False, True], ids=["two pools", "one pool"])
def test_programs_run_at_once_give_the_same_bits(shared: bool) -> None:
    first = native.Threads(2)
    pools = (first, first if shared else native.Threads(3))
    x = torch.randn(9, WIDTH)
    alone = [repeated(layers(pool, seed), x, 100)() for seed, pool in enumerate(pools)]
    calls = [repeated(layers(pool, seed), x, 100) for seed, pool in enumerate(pools)]
    for together, expected in zip(at_once(*calls), alone, strict=True):
        assert torch.equal(together, expected)
    assert not torch.equal(alone[0], alone[1])


def test_more_threads_than_cores() -> None:
    x = torch.randn(9, WIDTH)
    many = layers(native.Threads(8), 0)
    expected = layers(native.Threads(1), 0)(x)
    for _ in range(20):
        assert torch.equal(many(x), expected)


def test_two_engines_at_once(target: str, draft: str) -> None:
    params = [
        SamplingParams(temperature=0.0, max_tokens=24, ignore_eos=True),
        SamplingParams(temperature=0.9, top_p=0.9, seed=7, max_tokens=24, ignore_eos=True),
    ]

    def generate(llm: Any, params: SamplingParams) -> list[list[tuple[int, ...]]]:
        return [token_ids(output) for output in llm.generate(PROMPTS, params, use_tqdm=False)]

    engines = [load(target, num_threads=2), load(target, draft, num_threads=2)]
    alone = [generate(llm, p) for llm, p in zip(engines, params, strict=True)]
    assert alone[0] != alone[1]
    for _ in range(3):
        together = at_once(
            lambda: generate(engines[0], params[0]),
            lambda: generate(engines[1], params[1]),
        )
        assert together == alone


def test_pytorch_keeps_its_number_of_threads(target: str) -> None:
    """Ours are not PyTorch's: an application that embeds an engine has settled those."""
    before = torch.get_num_threads()
    llm = load(target, num_threads=before + 1)
    assert torch.get_num_threads() == before
    llm.generate(PROMPTS[0], SamplingParams(max_tokens=4), use_tqdm=False)
    assert torch.get_num_threads() == before


def seconds_of(pool: Any) -> float:
    """CPU time of this process in half a second in which `pool` has nothing to do."""
    program = layers(pool, 0)
    program(torch.randn(9, WIDTH))
    time.sleep(0.05)  # they look for more to do for a millisecond
    process = psutil.Process()
    before = process.cpu_times()
    time.sleep(0.5)
    after = process.cpu_times()
    return float(after.user + after.system - before.user - before.system)


def test_threads_without_work_sleep() -> None:
    assert seconds_of(native.Threads(4)) < 0.25
