"""Kernels that choose a token from each row of logits, over tiles of the vocabulary.

What is compared is a key, the bits of a score as an unsigned number of the same order. The last score that
top-k or top-p keeps is found by 4 bits of its key at a time, from sums of whole numbers, which are the same
in any order: a token counts 1 for top-k, and for top-p its mass in units of
`outrider.ops.torch.filters.MASS_UNIT`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from outrider.ops.cuda.noise import gumbel

NONE = tl.constexpr(2**31 - 1)  # behind all columns


@triton.jit
def peaks(logits, rows, tops, nans, stride, vocab, blocks, tile: tl.constexpr):
    """The largest logit of each tile, and how many are no numbers."""
    row, block = tl.program_id(0), tl.program_id(1)
    n = block * tile + tl.arange(0, tile)
    at = tl.load(rows + row).to(tl.int64) * stride + n
    value = tl.load(logits + at, mask=n < vocab, other=float("-inf"))
    no_number = value != value
    tl.store(tops + row * blocks + block, tl.max(tl.where(no_number, float("-inf"), value), 0))
    tl.store(nans + row * blocks + block, tl.sum(no_number.to(tl.int32), 0))


@triton.jit
def peak(tops, nans, top, why, blocks, padded: tl.constexpr):
    """The largest logit of each row; why it has no token, as a `NoToken`, or 0."""
    row, n = tl.program_id(0), tl.arange(0, padded)
    largest = tl.max(tl.load(tops + row * blocks + n, mask=n < blocks, other=float("-inf")), 0)
    no_numbers = tl.sum(tl.load(nans + row * blocks + n, mask=n < blocks, other=0), 0)
    reason = tl.where(largest == float("inf"), -2, tl.where(largest == float("-inf"), -3, 0))
    tl.store(why + row, tl.where(no_numbers > 0, -1, reason))
    tl.store(top + row, largest)


@triton.jit
def score_of(logits, rows, top, temperatures, floors, row, n, stride, vocab):
    """Log-probabilities up to a constant after min-p, -inf where filtered; logits at temperature 0."""
    at = tl.load(rows + row).to(tl.int64) * stride + n
    value = tl.load(logits + at, mask=n < vocab, other=float("-inf"))
    temperature = tl.load(temperatures + row)
    draws = temperature > 0.0
    divisor = tl.broadcast_to(tl.where(draws, temperature, 1.0), value.shape)
    score = tl.div_rn(tl.where(draws, value - tl.load(top + row), value), divisor)
    score = tl.where(score < tl.load(floors + row), float("-inf"), score)
    return tl.where(score == 0.0, 0.0, score)  # one zero


@triton.jit
def key_of(score):
    """uint32, of the same order as scores."""
    bits = score.to(tl.uint32, bitcast=True)
    return tl.where(bits >> 31 == 1, ~bits, bits | 0x80000000)


@triton.jit
def mass_of(score):
    """The probability relative to the likeliest, in whole units."""
    units = tl.exp(score.to(tl.float64)) * 17179869184.0
    return ((units + 4503599627370496.0) - 4503599627370496.0).to(tl.int64)  # the nearest, of two the even


@triton.jit
def tally(logits, rows, top, temperatures, floors, least, prefixes, sums, shares, stride, vocab, blocks,
          shift, tile: tl.constexpr, by_mass: tl.constexpr):  # fmt: skip
    """Sums of tokens whose keys begin with the row's prefix, by the next 4 bits: int64 [rows, blocks, 16].

    least: the smallest key that is kept already. A row whose share is 0 keeps all keys and has no sums.
    """
    row, block = tl.program_id(0), tl.program_id(1)
    if tl.load(shares + row) == 0.0:
        return
    n = block * tile + tl.arange(0, tile)
    score = score_of(logits, rows, top, temperatures, floors, row, n, stride, vocab)
    key = key_of(score).to(tl.int64)
    counted = (n < vocab) & (key >> (shift + 4) == tl.load(prefixes + row)) & (key >= tl.load(least + row))
    weight = mass_of(score) if by_mass else tl.full([tile], 1, tl.int64)
    digit = tl.arange(0, 16)
    mine = counted[None, :] & ((key >> shift & 15)[None, :] == digit[:, None])
    total = tl.sum(tl.where(mine, weight[None, :], 0), 1)
    tl.store(sums + (row * blocks + block) * 16 + digit, total)


@triton.jit
def narrow(sums, prefixes, above, limits, shares, blocks, first: tl.constexpr, padded: tl.constexpr):
    """Go on to the digit in which the sum of larger keys and its own reaches the limit.

    above: the sum of keys that are larger. At the first digit the limit is set, to the share of the whole; a
    share below 0 is a limit itself, and at 0 there is none: the prefix stays 0, and all keys are kept.
    """
    row, n, digit = tl.program_id(0), tl.arange(0, padded), tl.arange(0, 16)
    share = tl.load(shares + row)
    if share == 0.0:
        return
    at = (row * blocks + n[:, None]) * 16 + digit[None, :]
    each = tl.sum(tl.load(sums + at, mask=(n < blocks)[:, None], other=0), 0)
    larger = tl.load(above + row)
    if first:
        limit = tl.where(share < 0.0, -share, share * tl.sum(each, 0).to(tl.float64))
        tl.store(limits + row, limit)
    else:
        limit = tl.load(limits + row)
    of_digits = tl.where(digit[None, :] >= digit[:, None], each[None, :], 0)
    reached = larger + tl.sum(of_digits, 1)
    chosen = tl.maximum(tl.max(tl.where(reached.to(tl.float64) >= limit, digit, -1), 0), 0)
    tl.store(prefixes + row, tl.load(prefixes + row) * 16 + chosen)
    tl.store(above + row, larger + tl.sum(tl.where(digit > chosen, each, 0), 0))


@triton.jit
def ties(logits, rows, top, temperatures, floors, last, counts, stride, vocab, blocks, tile: tl.constexpr):
    """How many tokens of each tile have the last key that top-p keeps: int32 [rows, blocks]."""
    row, block = tl.program_id(0), tl.program_id(1)
    n = block * tile + tl.arange(0, tile)
    score = score_of(logits, rows, top, temperatures, floors, row, n, stride, vocab)
    same = (n < vocab) & (key_of(score).to(tl.int64) == tl.load(last + row))
    tl.store(counts + row * blocks + block, tl.sum(same.to(tl.int32), 0))


@triton.jit
def pick(logits, rows, top, temperatures, floors, keys, ids, least, last, above, limits, counts, without,
         values, columns, stride, vocab, blocks, tile: tl.constexpr, padded: tl.constexpr,
         by_k: tl.constexpr, by_p: tl.constexpr, has_ids: tl.constexpr,
         has_without: tl.constexpr):  # fmt: skip
    """The largest sum of score and noise in each tile, and the first column that has it."""
    row, block, inside = tl.program_id(0), tl.program_id(1), tl.arange(0, tile)
    n = block * tile + inside
    score = score_of(logits, rows, top, temperatures, floors, row, n, stride, vocab)
    key = key_of(score).to(tl.int64)
    kept = n < vocab
    if by_k:
        kept = kept & (key >= tl.load(least + row))
    if by_p:
        threshold, each = tl.load(last + row), tl.arange(0, padded)
        same = (n < vocab) & (key == threshold)
        before = tl.sum(tl.load(counts + row * blocks + each, mask=each < block, other=0), 0)
        rank = before + tl.cumsum(same.to(tl.int32), 0) - same.to(tl.int32)
        reached = tl.load(above + row) + rank.to(tl.int64) * mass_of(score)
        of_ties = same & (reached.to(tl.float64) < tl.load(limits + row))
        kept = kept & ((key > threshold) | of_ties)
    if has_without:
        kept = kept & (n != tl.load(without + row))
    token = n
    if has_ids:
        token = tl.load(ids + n, mask=n < vocab, other=0)
    draws = tl.load(temperatures + row) > 0.0
    noise = gumbel(tl.load(keys + row).to(tl.uint64, bitcast=True), token)
    value = tl.where(kept, score + tl.where(draws, noise, 0.0), float("-inf"))
    best = tl.max(value, 0)
    tl.store(values + row * blocks + block, best)
    tl.store(columns + row * blocks + block, tl.min(tl.where(kept & (value == best), n, NONE), 0))


@triton.jit
def decide(values, columns, why, out, blocks, padded: tl.constexpr):
    """The column of each row, or why there is none."""
    row, n = tl.program_id(0), tl.arange(0, padded)
    value = tl.load(values + row * blocks + n, mask=n < blocks, other=float("-inf"))
    column = tl.load(columns + row * blocks + n, mask=n < blocks, other=NONE)
    best = tl.max(value, 0)
    first = tl.min(tl.where(value == best, column, NONE), 0)
    reason = tl.load(why + row)
    tl.store(out + row, tl.where(reason < 0, reason, tl.where(best == float("-inf"), -3, first)))


@triton.jit
def powers(logits, rows, top, sums, stride, vocab, blocks, tile: tl.constexpr):
    """The sum of exp(logit - largest) of each tile."""
    row, block = tl.program_id(0), tl.program_id(1)
    n = block * tile + tl.arange(0, tile)
    at = tl.load(rows + row).to(tl.int64) * stride + n
    value = tl.load(logits + at, mask=n < vocab, other=float("-inf"))
    tl.store(sums + row * blocks + block, tl.sum(tl.exp(value - tl.load(top + row)), 0))


@triton.jit
def likeliest(sums, why, out, blocks, padded: tl.constexpr):
    """The probability of the likeliest token of each row; 0 where none can be chosen."""
    row, n = tl.program_id(0), tl.arange(0, padded)
    whole = tl.sum(tl.load(sums + row * blocks + n, mask=n < blocks, other=0.0), 0)
    tl.store(out + row, tl.where(tl.load(why + row) < 0, 0.0, tl.div_rn(1.0, whole)))
