"""K and V in 8 bits: the same bits on all instruction sets, near PyTorch's, and each row by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from outrider.ops.base import SCALE_BYTES
from outrider.ops.torch.codes import packed, spread, unpacked
from tests.ops import oracle
from tests.ops.oracle import Array, relative_error
from tests.ops.programs import INSTRUCTION_SETS, Kind, Layer, Piece, numbers, rounded
from tests.ops.test_program_attention import LAYERS, LIMITS, PLAIN, qkv


@pytest.mark.parametrize("name", ["as in Llama", "head_dim 80, no rope", "scale", "all of it"])
def test_instruction_sets_agree_as_they_do_on_bfloat16(name: str) -> None:
    """All that have the same bits there have the same bits here."""
    x = qkv(LAYERS[name], 150, 4)

    def results(kind: Kind) -> list[Array]:
        layers = [Layer(LAYERS[name], kind=kind, instruction_set=one) for one in INSTRUCTION_SETS]
        return [layer.whole(x) for layer in layers]

    wide, narrow = results("bfloat16"), results("int8")
    alike = [number for number, result in enumerate(wide) if np.array_equal(result, wide[0])]
    assert len(alike) >= len([one for one in INSTRUCTION_SETS if one.startswith(("avx", "amx"))])
    assert all(np.array_equal(narrow[number], narrow[0]) for number in alike)


@pytest.mark.parametrize("head_dim", [2, 20, 64, 80, 96, 128])
def test_what_is_stored_is_what_pytorch_stores(head_dim: int) -> None:
    """Up to the last bits of q and k, which may move a number across the middle between two codes."""
    attention = replace(PLAIN, head_dim=head_dim, rope=None)
    x, size = qkv(attention, 40, 2), 16
    layer = Layer(attention, kind="int8", block_size=size, blocks=3)
    layer.whole(x)
    k, v = np.split(x.reshape(40, -1, head_dim)[:, attention.heads :], 2, axis=1)
    for stored, expected, turned in (
        (layer.keys, packed(spread(torch.from_numpy(k))), True),
        (layer.values, packed(torch.from_numpy(v)), False),
    ):
        codes = stored[layer.tables[0]][..., : head_dim * size]
        codes = (
            codes.reshape(3, 2, head_dim, size).swapaxes(2, 3)
            if turned
            else codes.reshape(3, 2, size, head_dim)
        )
        scales = stored[layer.tables[0]][..., head_dim * size :].view(np.float32)
        found = codes.swapaxes(1, 2).reshape(48, 2, head_dim)[:40].astype(int)
        assert np.abs(found - expected[..., :-SCALE_BYTES].numpy()).max() <= 1
        wanted = expected[..., -SCALE_BYTES:].contiguous().view(torch.float32).numpy()[..., 0]
        assert np.allclose(scales.swapaxes(1, 2).reshape(48, 2)[:40], wanted, rtol=1e-6)


def test_spreading_leaves_products_and_shares_outliers_out() -> None:
    q, k = torch.from_numpy(numbers(5, 2, 96)), torch.from_numpy(numbers(5, 2, 96, seed=1))
    k[..., 7] = 100
    assert torch.allclose((spread(q) * spread(k)).sum(-1), (q * k).sum(-1), rtol=1e-4, atol=1e-3)
    assert float((unpacked(packed(k)) - k).abs().amax()) > 2 * float(
        (spread(unpacked(packed(spread(k)))) - k).abs().amax()
    )
    assert np.allclose(spread(k), oracle.spread(k.numpy()), atol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_reaches_those_that_see_it_alone(value: float) -> None:
    x = qkv(PLAIN, 40, 5)
    clean = Layer(PLAIN, kind="int8").whole(x)
    x[30, -1] = value  # of v's last head
    dirty = Layer(PLAIN, kind="int8").whole(x)
    assert np.array_equal(dirty[:30], clean[:30])
    assert bool(np.isnan(dirty[30:, 3 * 64 :]).all())
    assert np.array_equal(dirty[:, : 3 * 64], clean[:, : 3 * 64])


@pytest.mark.parametrize("size", [0.0, 1e-40, 1e-37, 1e30])
def test_numbers_of_any_size(size: float) -> None:
    x = qkv(replace(PLAIN, rope=None), 20, 6)
    x[:, -2 * 64 :] *= np.float32(size)
    got = Layer(replace(PLAIN, rope=None), kind="int8").whole(x)
    expected = replace(PLAIN, rope=None)(x, *rounded("int8"))
    assert np.abs(got - expected).max() <= 1e-2 * np.abs(expected).max() + 1e-35


def _of_a_block(x: Array) -> Array:
    """Rounded with one scale for all positions of a block."""
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    step = np.repeat([step[at : at + 16].max(axis=0) for at in range(0, len(x), 16)], 16, axis=0)[: len(x)]
    return np.asarray(np.rint(x / step) * step)


def _of_all_heads(x: Array) -> Array:
    step = np.abs(x).max(axis=(1, 2), keepdims=True) / 127
    return np.asarray(np.rint(x / step) * step)


def test_the_definition_notices_mistakes() -> None:
    """Rounding that is shared between positions or heads, or that spreads only one of q and k."""
    x = qkv(PLAIN, 120, 3)
    x[::3, 6 * 64 :] *= 30
    x[:, 6 * 64 + 5] += 40  # an outlier of K
    got = Layer(PLAIN, kind="int8").whole(x)
    assert relative_error(got, PLAIN(x, *rounded("int8"))) < LIMITS["int8"]
    wrong: dict[str, tuple[Any, ...]] = {
        "a scale a block": (_of_a_block, oracle.spread_as_int8),
        "a scale for all heads": (_of_all_heads, oracle.spread_as_int8),
        "K is not spread": (oracle.as_int8,),
        "q is not spread": (oracle.as_int8, lambda k: oracle.as_int8(oracle.spread(k))),
        "not rounded": (lambda x: x,),
    }
    for name, rounding in wrong.items():
        assert relative_error(got, PLAIN(x, *rounding)) > 2 * relative_error(
            got, PLAIN(x, *rounded("int8"))
        ), name


def _bits(layer: Layer, x: Array, *, cut: int) -> Array:
    """The last rows of a request that is computed in two passes."""
    layer.run([Piece(0, x, 0, cut)])
    return layer.run([Piece(0, x, cut, len(x))])[0]


def test_a_scale_that_later_rows_change_is_noticed() -> None:
    """Were a block's positions to share a scale that grows with what comes later, rows would depend on how
    a text is cut into passes: this plants it, and sees what all tests of equal bits look at."""
    x = qkv(PLAIN, 60, 8)
    whole = Layer(PLAIN, kind="int8").whole(x)[50:]
    assert np.array_equal(_bits(Layer(PLAIN, kind="int8"), x, cut=50), whole)
    layer = Layer(PLAIN, kind="int8")
    layer.run([Piece(0, x, 0, 50)])
    for array in (layer.keys, layer.values):  # the last block's scales become their largest, its codes finer
        part = array[layer.tables[0][3]]
        scales = part[:, 64 * 16 :].view(np.float32)
        grown = np.nanmax(scales[:, :2], axis=1, keepdims=True)
        codes = part[:, : 64 * 16].reshape((2, 64, 16) if array is layer.keys else (2, 16, 64))
        ratio = scales[:, :2] / grown
        at = np.s_[:, :, :2] if array is layer.keys else np.s_[:, :2]
        codes[at] = np.rint(codes[at] * (ratio[:, None] if array is layer.keys else ratio[..., None]))
        scales[:, :2] = grown
    assert not np.array_equal(layer.run([Piece(0, x, 50, 60)])[0], whole)
