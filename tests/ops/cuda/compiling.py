"""Compiles kernels for a GPU that is not there, and launches none: TRITON_INTERPRET=0 has to be set.

The interpreter takes code that the compiler refuses. Writes the name of each kernel that was compiled.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from outrider.cache.store import LayerCache, StateCache
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.ops.cuda import states
from outrider.ops.cuda.attention import attend
from outrider.ops.cuda.choose import Choosing, Draws, RowDraw
from outrider.ops.cuda.device import upload
from outrider.ops.cuda.embedding import look_up
from outrider.ops.cuda.experts import experts
from outrider.ops.cuda.gates import gate_by
from outrider.ops.cuda.heads import place_heads
from outrider.ops.cuda.layout import RowLayout
from outrider.ops.cuda.linear import linear
from outrider.ops.cuda.matrix import GpuMatrix, pack_matrix
from outrider.ops.cuda.norms import norm
from outrider.ops.shapes import AttentionShape, ConvShape, DeltaShape, HeadVectors, Rope, Routing
from outrider.ops.span import Span

CPU, HALF = torch.device("cpu"), torch.bfloat16


def weight(outputs: int, inputs: int, format: str, experts: int = 1) -> GpuMatrix:
    data = np.zeros((experts * outputs, FORMATS[format].row_bytes(inputs)), np.uint8)
    return pack_matrix([Weight(FORMATS[format], data, inputs)], CPU, experts=experts)


def compile_only(target: GPUTarget) -> None:
    """Launches become compilations from here on; values that kernels would have written are zeros."""

    def launching(kernel: Any, grid: Any) -> Any:
        def compiled(*arguments: Any, **constants: Any) -> None:
            kernel.run(*arguments, grid=grid, warmup=True, **constants)
            sys.stdout.write(f"{kernel.__name__}\n")

        return compiled

    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target,
            get_current_device=lambda: 0,
            get_current_stream=lambda device: 0,
            get_active_torch_device=lambda: CPU,
        )
    )
    JITFunction.__getitem__ = launching
    torch.empty = torch.zeros  # type: ignore[assignment]


def run() -> None:
    matrix, q4 = weight(64, 512, "BF16"), weight(64, 256, "Q4_K")
    linear(torch.zeros(40, 512, dtype=HALF), [matrix], torch.zeros(40, 64))
    for format in FORMATS:
        linear(torch.zeros(1, 256, dtype=HALF), [weight(64, 256, format)])
    look_up(torch.zeros(1, dtype=torch.int32), q4, 1.0)
    shape = AttentionShape(8, 2, 64, 0.1, Rope((1.0,) * 32), window=100)
    laid = RowLayout.of([Span([0] * 5, 7, ([0],), 1)], 16)
    batch = laid.batch(upload(laid.arrays, CPU))
    keys = torch.zeros(16, 2, 64, dtype=HALF)
    cache = LayerCache(keys, keys)
    q = place_heads(torch.zeros(8, 768), batch, cache, shape, HeadVectors(), torch.zeros(32), HALF)
    attend(q, batch, cache, shape, torch.zeros(8))
    x = torch.zeros(2, 64)
    norm(x, torch.zeros(64), 1e-5, HALF)
    gate_by(x, x, "gelu_tanh", HALF)
    stacks = (weight(32, 64, "F8_E4M3", 4), weight(32, 64, "F8_E4M3", 4), weight(64, 32, "F8_E4M3", 4))
    positions, routing = torch.zeros(2, dtype=torch.int32), Routing(4, 2, normalised=True)
    experts(x.to(HALF), torch.zeros(2, 4), stacks, routing, "silu", positions, x, 1.0, None)
    wide = torch.zeros(8, 1024)
    convolution, rule = ConvShape(1024, 4, silu=True), DeltaShape(2, 4, 128, 128)
    slots = [StateCache(torch.zeros(3, *shape.state)) for shape in (convolution, rule)]
    states.convolve(wide, torch.zeros(1024, 4), None, slots[0], convolution, batch.states)
    gates = torch.zeros(8, 4)
    states.delta(wide, gates, gates, gates[0], gates[0], slots[1], rule, batch.states)
    draws = Draws.of([RowDraw(0, 1.0, 0.1, 5, 0.9, 7)], 3000)
    choosing = Choosing(torch.zeros(1, 3000), draws, upload(draws.arrays, CPU))
    choosing.columns()
    choosing.confidences()


if __name__ == "__main__":
    compile_only(GPUTarget("cuda", 90, 32))
    run()
