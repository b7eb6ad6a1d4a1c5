"""Passes that are recorded once and launched again: the same bits, the same memory, and nobody waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial, partialmethod
from typing import Any

import numpy as np
import pytest
import torch

from outrider.errors import OutriderError
from outrider.ops.budget import Budget
from outrider.ops.choice import Choice, Filters
from outrider.ops.cuda import graphs as graphs_module
from outrider.ops.cuda.backend import GpuBackend
from outrider.ops.cuda.chain import GpuChain
from outrider.ops.cuda.device import LaunchRecorder
from outrider.ops.cuda.forward import GpuForward
from outrider.ops.cuda.graphs import Graphs
from outrider.ops.cuda.layout import RowLayout
from outrider.ops.lane import Lane, Words
from outrider.ops.shapes import AttentionShape, ConvShape, DeltaShape, HeadVectors, Rope, Routing
from outrider.ops.span import Span
from tests.ops.cuda import DEVICE, ON_GPU
from tests.ops.cuda.tape import Tape
from tests.ops.cuda.test_linear import stored

BLOCK, HIDDEN, VOCAB = 16, 32, 40
SHAPE = AttentionShape(2, 1, 8, 0.3, Rope((1.0, 0.1)), window=40)
CONV, RULE = ConvShape(HIDDEN, 3), DeltaShape(1, 2, 8, 8)
ROUTING = Routing(3, 2, normalised=True)
RECORD = LaunchRecorder.record  # which tests have replaced by tapes while they run
on_cpu = pytest.mark.skipif(ON_GPU, reason="tapes and fakes stand for a GPU")


def decoder(scale: Any = lambda: 1.0, *, eager: bool = False) -> GpuForward:
    """A pass with a layer of each kind. scale: a number of the host."""
    backend = GpuBackend(DEVICE, cache_dtype="float32", eager=eager)

    def matrix(outputs: int, inputs: int) -> Any:
        return backend.pack([stored(outputs, inputs, "F32", seed=outputs)])

    def stack(outputs: int, inputs: int) -> Any:
        return backend.stack([stored(outputs, inputs, "F32", seed) for seed in range(3)])

    table, ones = backend.table(stored(VOCAB, HIDDEN, "F32")), backend.vector(np.ones(HIDDEN, np.float32))
    qkv, out, head = matrix(32, HIDDEN), matrix(HIDDEN, 16), matrix(VOCAB, HIDDEN)
    taps = backend.vector(np.full((HIDDEN, 3), 0.3, np.float32))
    scores, stacks = matrix(3, HIDDEN), (stack(8, HIDDEN), stack(8, HIDDEN), stack(HIDDEN, 8))
    gates, vector = matrix(2, HIDDEN), backend.vector(np.full(2, -0.5, np.float32))

    def definition(ops: Any, cache: Any) -> Any:
        x = ops.embed(table, scale())
        x = ops.linear(ops.attend(ops.linear(x, qkv), cache[0], SHAPE, HeadVectors()), out, x)
        x = ops.convolve(x, taps, None, cache[1], CONV)
        ruled = ops.delta(x, ops.linear(x, gates), ops.linear(x, gates), vector, vector, cache[2], RULE)
        x = ops.linear(ruled, out, ops.soft_cap(x, 5.0))
        y = ops.norm(x, ones, 1e-5)
        x = ops.experts(y, ops.linear(y, scores), *stacks, ROUTING, "silu", x)
        ops.keep(x)
        return ops.linear(ops.select_logit_rows(x), head)

    caches: tuple[Any, ...] = (*backend.new_cache(12, BLOCK, [SHAPE]), *backend.new_states(12, [CONV, RULE]))
    for states in caches[1:]:
        states.values.zero_()
    return backend.compile(definition, caches, BLOCK)


TABLES = ([7, 2, 9, 4], [0, 5, 11, 3])
STEPS = (  # (start, rows, rows with logits) of two requests, all of one bucket
    ((0, 3, 1), (0, 4, 3)),
    ((3, 1, 1), (4, 5, 3)),
    ((4, 4, 2), (9, 2, 1)),
    ((8, 3, 3), (11, 4, 1)),
)


def spans(step: int) -> list[Span]:
    """Other tokens, positions, slots and tables in each step."""
    made = []
    for request, (start, rows, logit_rows) in enumerate(STEPS[step]):
        slots = {start: 6 * request + step, start + rows: 6 * request + step + 1}
        table = TABLES[request][: 1 + step]
        made.append(
            Span([(7 * step + row) % VOCAB for row in range(rows)], start, (table,), logit_rows, slots)
        )
    return made


def passed(forward: GpuForward, step: int) -> tuple[torch.Tensor, ...]:
    logits, kept = forward.run(spans(step))
    assert kept is not None
    assert len(kept) == sum(rows for _, rows, _ in STEPS[step])
    return logits, kept


@pytest.fixture(scope="module")
def unrecorded() -> list[tuple[torch.Tensor, ...]]:
    forward = decoder(eager=True)
    made = [passed(forward, step) for step in range(len(STEPS))]
    assert not forward.graphs._kept
    return made


def test_a_pass_that_is_launched_again_has_the_same_bits_and_memory(unrecorded: Any) -> None:
    forward, memory = decoder(), set[tuple[int, ...]]()
    for step, wanted in enumerate(unrecorded):
        found = passed(forward, step)
        assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True)), step
        (kept,) = forward.graphs._kept.values()
        memory.add(tuple(one.data_ptr() for one in (*found, *kept.memory.tensors.values())))
    assert len(memory) == 1
    assert kept.again is not None


def test_padding_changes_no_row(unrecorded: Any) -> None:
    """A request's rows alone, padded to fewer than beside another one."""
    forward = decoder()
    logits, kept = forward.run(spans(0)[:1])
    assert kept is not None
    padded = [len(RowLayout.of(spans(0)[:count], BLOCK).arrays["tokens"]) for count in (1, 2)]
    assert (len(kept), padded) == (3, [4, 8])
    assert torch.equal(logits, unrecorded[0][0][:1])
    assert torch.equal(kept, unrecorded[0][1][:3])


@on_cpu
def test_planted_fault_a_number_of_the_host_is_held_fast(unrecorded: Any) -> None:
    """Which the test above would see: a scale that is right when it is recorded, and another later."""
    step, forward = [0], decoder(lambda: 1.0 if step[0] < 2 else 2.0)
    for step[0] in range(2):
        passed(forward, step[0])
    step[0] = 2
    assert torch.equal(passed(forward, 2)[0], unrecorded[2][0])  # as it was recorded


@on_cpu
def test_what_cannot_be_recorded_is_seen() -> None:
    with pytest.raises(AssertionError, match="cannot be recorded"), Tape():
        torch.ones(3).sum().item()


def test_graphs_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that was used longest ago makes room, and is right when it is wanted again."""
    monkeypatch.setattr(graphs_module, "MOST", 2)
    graphs = Graphs(torch.device(DEVICE))

    def doubled(*numbers: int) -> list[int]:
        inputs: dict[str, Any] = {"x": np.array(numbers, np.int32)}
        found: list[int] = graphs.run(("double",), inputs, lambda there: (there["x"] * 2,))[0].tolist()
        return found

    for numbers in ((1, 2), (3,), (4, 5), (1, 2, 3), (6,), (7, 8), (9, 10)):
        assert doubled(*numbers) == [2 * number for number in numbers]
        assert len(graphs._kept) <= 2


def test_inputs_of_the_device_and_work_that_is_not_kept() -> None:
    graphs, there = Graphs(torch.device(DEVICE)), torch.ones(3, device=DEVICE)

    def work(given: Any) -> tuple[torch.Tensor, ...]:
        return (given["x"] + given["y"],)

    for number, key in enumerate((("sum",), ("sum",), None, ("sum",))):
        inputs: dict[str, Any] = {"x": np.full(3, number, np.float32), "y": there * number}
        (result,) = graphs.run(key, inputs, work)
        assert result.tolist() == [2.0 * number] * 3
        assert graphs.holds(result) == (key is not None)


def test_sizes_are_few() -> None:
    """Requests that grow from token to token have arrays of a few sizes."""

    def sizes(length: int) -> Any:
        table = [*range(-(-(length + 4) // BLOCK) + 1)]
        laid = RowLayout.of([Span([0] * 4, length, (table,), 4)] * 3, BLOCK)
        return laid.splits, tuple((name, array.shape) for name, array in laid.arrays.items())

    assert len({sizes(length) for length in range(0, 4000, 9)}) == 4


@contextmanager
def waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What the host waits for."""
    found = list[str]()
    with monkeypatch.context() as patch:
        for name in ("tolist", "item", "cpu", "__bool__", "__int__", "__float__", "__index__"):

            def waited(*given: Any, name: str, method: Any) -> Any:
                found.append(name)
                return method(*given)

            method = getattr(torch.Tensor, name)
            patch.setattr(torch.Tensor, name, partialmethod(waited, name=name, method=method))
        yield found


def test_a_step_waits_for_its_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = decoder()
    choices = [Choice(1, Filters(0.7, top_k=5)), Choice(1)]
    for step in range(3):
        with waits(monkeypatch) as found:
            forward.step(spans(step), choices)
        assert found == ["tolist"], step


def test_a_draft_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is drafted, one draft after the other, with the same memory."""
    forward, drafts = decoder(), []
    chain = GpuChain(forward, forward, Words(VOCAB))
    slots = {end: end for end in range(1, 9)}
    for first in (3, 3, 4, 3):
        span = Span([first, 2], 0, ([1, 6],), 1, slots)
        with waits(monkeypatch) as found:
            drafts += chain([Lane(span, Choice(1), Budget(3, siblings=1), ())])
        assert found == ["cpu"]
    assert [len(draft.tokens) for draft in drafts] == [3] * 4
    assert [drafts[n].tokens for n in (1, 3)] == [drafts[0].tokens] * 2


@on_cpu
def test_graphs_of_a_gpu_share_one_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """By fakes of the driver: all are recorded on one stream into the pool of the first, which stays."""
    asked, replayed = list[tuple[Any, ...]](), list[int]()

    class Graph:
        def pool(self) -> int:
            return id(self)

        def replay(self) -> None:
            replayed.append(id(self))

    @contextmanager
    def recording(graph: Graph, pool: Any, stream: Any, *, capture_error_mode: str) -> Iterator[None]:
        asked.append((id(graph), pool, stream, capture_error_mode))
        yield

    fakes = {"CUDAGraph": Graph, "graph": recording, "Stream": lambda device: f"stream of {device}"}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    recorder = LaunchRecorder(torch.device("cuda:1"))
    ran = list[int]()
    again = [RECORD(recorder, partial(ran.append, number)) for number in range(3)]
    assert ran == [0, 1, 2]
    first = asked[0][0]
    assert [pool for _, pool, _, _ in asked] == [None, first, first]
    assert {each[2:] for each in asked} == {("stream of cuda:1", "thread_local")}
    again[2]()
    assert replayed == [asked[2][0]]


@on_cpu
def test_a_gpu_that_refuses_to_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error gives the driver's reason, and the option that does without."""
    fakes = {"CUDAGraph": str, "graph": lambda *given, **how: nullcontext(), "Stream": str}
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)

    def refused() -> None:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nCompile with ...")

    with pytest.raises(OutriderError, match=r"as a CUDA graph: CUDA error: .* capturing; enforce_eager = "):
        RECORD(LaunchRecorder(torch.device("cuda:1")), refused)
