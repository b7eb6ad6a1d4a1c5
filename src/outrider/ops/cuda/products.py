"""The kernel of linear layers, whose sums have one order whatever the number of rows.

A product always has 16 rows, a strip; more rows are more strips side by side, each with sums of its own, over
the same tile of the weight. Multiplications and additions that could be fused or not are fused by name, so
that kernels for other numbers of strips cannot differ in that.
"""

from __future__ import annotations

import triton
import triton.language as tl

from outrider.ops.cuda.decode import by_halves, factors_of, floats, pair, takes_off


@triton.jit
def strip_rows(number, slots, rows, share: tl.constexpr, mixture: tl.constexpr):
    """The rows that a strip reads and writes, and which of them there are."""
    written = number * 16 + tl.arange(0, 16)
    read, there = written, written < rows
    if mixture:
        written = tl.load(slots + written)
        read, there = written // share, written >= 0
    return read, written, there


@triton.jit
def finish(y, out, residual, bias, row, n, real, width, first, factor, base, with_bias: tl.constexpr,
           with_residual: tl.constexpr):  # fmt: skip
    """factor * (y + bias), added to the residual, into columns from `first` on."""
    if with_bias:
        y = y + tl.load(bias + base + n, mask=real, other=0.0)
    at = row.to(tl.int64) * width + first + n
    if with_residual:
        before = tl.load(residual + at, mask=real, other=0.0)
        y = tl.fma(y, tl.full(y.shape, 1.0, tl.float32) * factor, before)
    else:
        y = y * factor
    tl.store(out + at, y, mask=real)


@triton.jit
def put(y, out, partial, residual, bias, row, there, n, split, rows, outputs, width, first, factor, base,
        splits: tl.constexpr, with_bias: tl.constexpr, with_residual: tl.constexpr):  # fmt: skip
    """A strip's sums [16, tile]: finished where there is one split, else for `add_splits`."""
    real = there[:, None] & (n < outputs)[None, :]
    if splits == 1:
        finish(y, out, residual, bias, row[:, None], n[None, :], real, width, first, factor, base,
               with_bias, with_residual)  # fmt: skip
    else:
        at = (split.to(tl.int64) * rows + row[:, None]) * outputs + n[None, :]
        tl.store(partial + at, y, mask=real)


@triton.jit(do_not_specialize=["rows"])
def add_splits(partial, out, residual, bias, expert_of, rows, outputs, width, first, factor,
               splits: tl.constexpr, tile: tl.constexpr, mixture: tl.constexpr, with_bias: tl.constexpr,
               with_residual: tl.constexpr):  # fmt: skip
    """Sums of splits, added in their order. expert_of: of each result."""
    row, n = tl.program_id(0), tl.program_id(1) * tile + tl.arange(0, tile)
    real, y = n < outputs, tl.zeros([tile], tl.float32)
    for split in range(splits):
        at = (tl.cast(split, tl.int64) * rows + row) * outputs + n
        y = y + tl.load(partial + at, mask=real, other=0.0)
    base = 0
    if mixture:
        base = tl.load(expert_of + row) * outputs
    finish(y, out, residual, bias, row, n, real, width, first, factor, base, with_bias, with_residual)


@triton.jit
def add_tile(acc, x, low, high, scale, other, least, less, row, there, start, inputs, kind: tl.constexpr,
             operand: tl.constexpr, precision: tl.constexpr, depth: tl.constexpr,
             tile: tl.constexpr):  # fmt: skip
    """A strip's sums [16, tile] with those of a tile of inputs, which begins at `start`.

    low: of a dense weight [tile, depth]; in groups the codes [16, tile] of the first half, and `high` of the
    second.
    """
    flat = row.to(tl.int64)[:, None] * inputs
    if depth > 0:
        k = start + tl.arange(0, depth)
        read = tl.load(x + flat + k[None, :], mask=there[:, None] & (k < inputs)[None, :], other=0.0).to(
            operand
        )
        if kind == "fp8_block":
            zeros = tl.zeros([16, tile], tl.float32)
            part = tl.dot(read, tl.trans(low), zeros, input_precision=precision)
            acc = tl.fma(part, tl.broadcast_to(scale[None, :], [16, tile]), acc)
        else:
            acc = tl.dot(read, tl.trans(low), acc, input_precision=precision)
    else:
        k = start + tl.arange(0, 16)
        first = tl.load(x + flat + k[None, :], mask=there[:, None] & (k < inputs)[None, :], other=0.0)
        k += 16
        second = tl.load(x + flat + k[None, :], mask=there[:, None] & (k < inputs)[None, :], other=0.0)
        zeros = tl.zeros([16, tile], tl.float32)
        part = tl.dot(first.to(operand), low, zeros, input_precision=precision)
        if by_halves(kind):
            acc = tl.fma(part, tl.broadcast_to(scale[None, :], [16, tile]), acc)
            part = zeros
        part = tl.dot(second.to(operand), high, part, input_precision=precision)
        acc = tl.fma(part, tl.broadcast_to(other[None, :], [16, tile]), acc)
        if takes_off(kind):
            sums, others = tl.sum(first.to(tl.float32), 1), tl.sum(second.to(tl.float32), 1)
            if by_halves(kind):
                off = tl.broadcast_to(-least[None, :], [16, tile])
                acc = tl.fma(tl.broadcast_to(sums[:, None], [16, tile]), off, acc)
                sums = tl.zeros([16], tl.float32)
            off = tl.broadcast_to(-less[None, :], [16, tile])
            acc = tl.fma(tl.broadcast_to((sums + others)[:, None], [16, tile]), off, acc)
    return acc


@triton.jit(do_not_specialize=["rows"])
def multiply(x, out, partial, residual, bias, codes, scales, high, more, factors, table, slots, experts, rows,
             outputs, inputs, columns: tl.int64, width, first, factor, chunk: tl.constexpr,
             kind: tl.constexpr, low_bits: tl.constexpr, high_bits: tl.constexpr, zero: tl.constexpr,
             per: tl.constexpr, has_table: tl.constexpr, depth: tl.constexpr, operand: tl.constexpr,
             precision: tl.constexpr, tile: tl.constexpr, splits: tl.constexpr, strips: tl.constexpr,
             share: tl.constexpr, mixture: tl.constexpr, with_bias: tl.constexpr,
             with_residual: tl.constexpr):  # fmt: skip
    """Programs: tiles of outputs, splits of the inputs, and as many strips as `strips` at a time.

    columns: outputs of all experts. depth: inputs of a dense tile; 0: a weight in groups of 32.
    """
    n = tl.program_id(0) * tile + tl.arange(0, tile)
    split, block, base = tl.program_id(1), tl.program_id(2), 0
    if mixture:
        expert = tl.load(experts + block)
        if expert < 0:
            return
        base = expert * outputs
    row0, to0, there0 = strip_rows(block * strips, slots, rows, share, mixture)
    acc0 = tl.zeros([16, tile], tl.float32)
    if strips > 1:
        row1, to1, there1 = strip_rows(block * strips + 1, slots, rows, share, mixture)
        acc1 = tl.zeros([16, tile], tl.float32)
    if strips > 2:
        row2, to2, there2 = strip_rows(block * strips + 2, slots, rows, share, mixture)
        acc2 = tl.zeros([16, tile], tl.float32)
        row3, to3, there3 = strip_rows(block * strips + 3, slots, rows, share, mixture)
        acc3 = tl.zeros([16, tile], tl.float32)
    # Beyond the last output stands the last once more, which nobody stores.
    weight = (base + tl.minimum(n, outputs - 1)).to(tl.int64)
    step: tl.constexpr = depth if depth > 0 else 32
    for start in range(split * chunk, min(split * chunk + chunk, inputs), step):
        if depth > 0:
            k = start + tl.arange(0, depth)
            at = weight[:, None] * inputs + k[None, :]
            low = floats(codes, at, (k < inputs)[None, :], kind).to(operand)
            upper, scale = low, tl.zeros([tile], tl.float32)
            if kind == "fp8_block":
                scale = tl.load(scales + weight * ((inputs + depth - 1) // depth) + start // depth)
            other, least, less = scale, scale, scale
        else:
            group = start // 32
            low, upper = pair(codes, high, table, more, group, tl.arange(0, 16)[:, None], weight[None, :],
                              columns, low_bits, high_bits, zero, kind, per, has_table)  # fmt: skip
            low, upper = low.to(operand), upper.to(operand)
            scale, other, least, less = factors_of(scales, more, factors, group, weight, columns, kind, per)
        acc0 = add_tile(acc0, x, low, upper, scale, other, least, less, row0, there0, start, inputs, kind,
                        operand, precision, depth, tile)  # fmt: skip
        if strips > 1:
            acc1 = add_tile(acc1, x, low, upper, scale, other, least, less, row1, there1, start, inputs, kind,
                            operand, precision, depth, tile)  # fmt: skip
        if strips > 2:
            acc2 = add_tile(acc2, x, low, upper, scale, other, least, less, row2, there2, start, inputs, kind,
                            operand, precision, depth, tile)  # fmt: skip
            acc3 = add_tile(acc3, x, low, upper, scale, other, least, less, row3, there3, start, inputs, kind,
                            operand, precision, depth, tile)  # fmt: skip
    if kind == "int8" or kind == "fp8":
        of_output = tl.load(scales + weight)[None, :]
        acc0 = acc0 * of_output
        if strips > 1:
            acc1 = acc1 * of_output
        if strips > 2:
            acc2, acc3 = acc2 * of_output, acc3 * of_output
    put(acc0, out, partial, residual, bias, to0, there0, n, split, rows, outputs, width, first, factor, base,
        splits, with_bias, with_residual)  # fmt: skip
    if strips > 1:
        put(acc1, out, partial, residual, bias, to1, there1, n, split, rows, outputs, width, first, factor,
            base, splits, with_bias, with_residual)  # fmt: skip
    if strips > 2:
        put(acc2, out, partial, residual, bias, to2, there2, n, split, rows, outputs, width, first, factor,
            base, splits, with_bias, with_residual)  # fmt: skip
        put(acc3, out, partial, residual, bias, to3, there3, n, split, rows, outputs, width, first, factor,
            base, splits, with_bias, with_residual)  # fmt: skip
