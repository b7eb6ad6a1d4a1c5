"""Threads of the native kernels: several pools and engines in one process, and quiet when idle."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Event, get_native_id
from typing import Any, TypeVar

import psutil
import pytest
import torch
from torch import Tensor

from outrider import OutriderError, SamplingParams
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.ops.native import INSTRUCTION_SETS, float_weight, native, pack, random_weight

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
        weight = pack(random_weight(WIDTH, WIDTH, "Q8_0", seed + layer))
        value = program.linear(program.norm(value, torch.ones(WIDTH), 1e-5), [weight], value)
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


def test_a_program_runs_once_at_a_time() -> None:
    """Who comes second is refused, and the first one's results are what they are alone."""
    run, x = layers(native.Threads(2), 0), torch.randn(64, WIDTH)
    expected = run(x)

    def attempts() -> set[str]:
        found = set()
        for _ in range(50):
            try:
                found.add("the same" if torch.equal(run(x), expected) else "others")
            except RuntimeError as error:
                found.add(str(error))
        return found

    first, second = at_once(attempts, attempts)
    assert first | second == {"the same", "the program is already running, on another thread"}


def test_more_tasks_than_a_stage_can_count() -> None:
    rows = 2**17 + 3
    program = native.Program(native.Threads(2), INSTRUCTION_SETS[0])
    program.output(program.norm(program.input(1), torch.ones(1), 0.0))
    x = torch.randn(rows, 1)
    y = torch.from_numpy(program.run([0] * rows, [0], [rows], [[]], [0], x))
    torch.testing.assert_close(y, x.sign())


def test_no_thread_sleeps_while_others_hold_long_tasks() -> None:
    """A task of a large model takes some milliseconds, longer than an idle thread looks for more."""
    process, caller = psutil.Process(), get_native_id()
    others = {thread.id for thread in process.threads()}
    program = native.Program(native.Threads(2), "portable")
    (worker,) = {thread.id for thread in process.threads()} - others
    weight = pack(random_weight(16 * 8, 4096, "F32"))
    narrow = pack(random_weight(4096, 16 * 8, "F32"))
    value = program.input(4096)
    for _ in range(12):
        value = program.linear(program.linear(value, [weight]), [narrow])
    program.output(value)
    x = torch.randn(256, 4096)

    def seconds() -> dict[int, float]:
        return {thread.id: thread.user_time for thread in process.threads()}

    before = seconds()
    program.run([0] * len(x), [0], [len(x)], [[]], [0], x)
    after = seconds()
    spent = {thread: after[thread] - before[thread] for thread in (caller, worker)}
    assert spent[worker] > spent[caller] / 3


@contextmanager
def flushing() -> Iterator[None]:
    """Subnormal numbers are zero on this thread, and on those that it starts."""
    if not torch.set_flush_denormal(True):
        pytest.skip("this machine cannot flush subnormal numbers")
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


@pytest.mark.parametrize("count", [1, 2])
def test_bits_do_not_depend_on_whether_the_caller_flushes_subnormal_numbers(count: int) -> None:
    weight = pack(float_weight(1e-20 * torch.randn(WIDTH, WIDTH)))
    x = 1e-22 * torch.randn(9, WIDTH)

    def bits(pool: Any) -> Tensor:
        program = native.Program(pool, INSTRUCTION_SETS[0])
        program.output(program.linear(program.input(WIDTH), [weight]))
        return torch.from_numpy(program.run([0] * 9, [0], [9], [[]], [0], x)).view(torch.int32)

    pool = native.Threads(count)
    expected = bits(pool)
    assert bool((expected != 0).all())
    with flushing():
        tiny = torch.tensor(1e-30)
        for made_while_flushing in (False, True):
            flushed = bits(native.Threads(count) if made_while_flushing else pool)
            assert torch.equal(flushed, expected)
        assert float(tiny * tiny.sqrt()) == 0  # the caller's setting is as it was


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


def test_every_way_to_run_a_program_is_refused_while_it_runs() -> None:
    """A step, and a draft by either of its programs."""
    table = pack(random_weight(WIDTH, WIDTH, "Q8_0", 0))

    def of_tokens(layers: int) -> Any:
        program = native.Program(native.Threads(1), INSTRUCTION_SETS[0])
        value = program.select_logit_rows(program.embed(table))
        for _ in range(layers):
            value = program.linear(value, [table], value)
        program.output(value)
        return program

    long, other, stopped = of_tokens(20), of_tokens(0), Event()
    rows: list[Any] = [[0], [0], [1], [[]]]
    wanted = native.Choice(0, 1, None, 0, 0)
    lane = native.Lane(wanted, 1, [], None, False, False)
    attempts: list[Callable[[], Any]] = [
        lambda: long.run(*rows, [1]),
        lambda: long.step(*rows, [1], [wanted]),
        lambda: native.draft(long, other, *rows, [lane], None, WIDTH),
        lambda: native.draft(other, long, *rows, [lane], None, WIDTH),
    ]

    def refused(attempt: Callable[[], Any]) -> bool:
        try:
            attempt()
        except RuntimeError as error:
            return str(error) == "the program is already running, on another thread"
        return False

    def go_on_running() -> None:
        while not stopped.is_set():
            refused(lambda: long.run([0] * 400, [0], [400], [[]], [400]))

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(go_on_running)
        deadline = time.monotonic() + 60
        try:
            for attempt in attempts:
                while not refused(attempt):
                    assert time.monotonic() < deadline
        finally:
            stopped.set()
        running.result()
    assert not any(refused(attempt) for attempt in attempts)


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


ALONE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("_native", sys.argv[1])
native = importlib.util.module_from_spec(spec)
spec.loader.exec_module(native)
"""


def run_alone(script: str) -> str:
    """What a script prints in a process of its own, which has the extension as `native` and ends in time."""
    command = [sys.executable, "-c", ALONE + script, str(native.__file__)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    return done.stdout


def test_pools_end_whether_they_have_run_or_not() -> None:
    script = """
import numpy
x = numpy.ones((9, 8), numpy.float32)
for i in range(300):
    pool = native.Threads(4)
    if i % 2:
        program = native.Program(pool, native.instruction_sets()[0])
        program.output(program.norm(program.input(8), x[0], 0.0))
        program.run([0] * 9, [0], [9], [[]], [0], x)
        del program
    del pool
print("done")
"""
    assert run_alone(script) == "done\n"


FORKED = """
import os, numpy
pool = native.Threads(4)
program = native.Program(pool, native.instruction_sets()[0])
x = numpy.ones((9, 8), numpy.float32)
program.output(program.norm(program.input(8), x[0], 0.0))
run = lambda program: program.run([0] * 9, [0], [9], [[]], [0], x)
if os.fork() == 0:
    try:
        run(program)
    except RuntimeError as error:
        print(str(error).replace(str(os.getppid()), "N"), flush=True)
    del program, pool
    program = native.Program(native.Threads(4), native.instruction_sets()[0])
    program.output(program.norm(program.input(8), x[0], 0.0))
    print("of its own:", run(program).shape, flush=True)
    raise SystemExit(7)
print("ended:", os.waitstatus_to_exitcode(os.wait()[1]), run(program).shape)
"""

forking = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not copy processes")


@forking
def test_a_fork_is_refused_a_run_and_ends_well() -> None:
    """It may drop the pool whose threads it does not have, and make another; its parent goes on."""
    refused, own, ended = run_alone(FORKED).splitlines()
    assert refused.startswith("the threads were started in process N, and a fork of it, as process ")
    assert "load the model in the process that runs it" in refused
    assert (own, ended) == ("of its own: (9, 8)", "ended: 7 (9, 8)")


@forking
def test_an_engine_in_a_fork(target: str) -> None:
    """One error of ours, whatever the requests; the parent's engine is as before."""
    llm = load(target, num_threads=2)
    params = SamplingParams(temperature=0.0, max_tokens=4)
    before = llm.generate(PROMPTS[0], params, use_tqdm=False)
    reading, writing = os.pipe()
    if os.fork() == 0:
        try:
            llm.generate(PROMPTS[0], params, use_tqdm=False)
        except OutriderError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.wait()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        assert f"the threads were started in process {os.getpid()}" in pipe.read()
    assert token_ids(llm.generate(PROMPTS[0], params, use_tqdm=False)[0]) == token_ids(before[0])


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_threads_that_the_system_does_not_have() -> None:
    script = """
import resource
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 2**27
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    native.Threads(1024)
except RuntimeError as error:
    print(error)
print(native.Threads(2).count)
"""
    assert run_alone(script).startswith("count = 1024: the system has only ")


def test_threads_without_work_sleep() -> None:
    assert seconds_of(native.Threads(4)) < 0.25
