"""How the GPU's kernels hold each weight format: the file's bytes, in planes that are read in one piece."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from outrider.formats.channel import FP8_BLOCK, SCALE
from outrider.formats.grouped import E2M1_DOUBLES, IQ4_VALUES

GROUP = 32
"""Inputs whose codes lie together."""


@dataclass(frozen=True)
class Planes:
    """The bytes of a matrix [outputs, inputs], taken apart by what they mean.

    codes: of a dense matrix [outputs, inputs]; of one in groups uint8 [bytes of all inputs, outputs], so that
    neighbours are loaded together. high: bits of codes above those in `codes`. scales, more: factors of
    groups and what belongs to them. table: the values of codes. A plane that a format does not have is None.
    """

    codes: Tensor
    scales: Tensor | None = None
    high: Tensor | None = None
    more: Tensor | None = None
    factors: Tensor | None = None
    table: Tensor | None = None

    @property
    def nbytes(self) -> int:
        planes = (self.codes, self.scales, self.high, self.more, self.factors)
        return sum(plane.nbytes for plane in planes if plane is not None)


@dataclass(frozen=True)
class GpuFormat:
    """How kernels read a format.

    pack: uint8 [outputs, bytes of a row] -> planes. scales: which arithmetic makes factors of the planes;
    '' : a dense matrix of floats. tile: inputs that a dense matrix is read by. bits: of a code, in `codes`
    and in `high`; zero: what is taken off codes; per: groups that share a scale.
    """

    pack: Callable[[Tensor], Planes]
    scales: str = ""
    tile: int = 0
    bits: tuple[int, int] = (4, 0)
    zero: int = 0
    per: int = 1

    @property
    def dense(self) -> bool:
        return self.tile > 0


def _floats(dtype: torch.dtype) -> Callable[[Tensor], Planes]:
    return lambda data: Planes(data.contiguous().view(dtype))


def _channels(data: Tensor) -> Planes:
    return Planes(data[:, SCALE:].contiguous(), data[:, :SCALE].contiguous().view(torch.float32)[:, 0])


def _fp8_blocks(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, SCALE + FP8_BLOCK)
    scales = blocks[..., :SCALE].contiguous().view(torch.float32)[..., 0]
    return Planes(blocks[..., SCALE:].reshape(len(data), -1).contiguous(), scales.contiguous())


def _q8_0(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 34)
    return Planes(_down(blocks[..., 2:]), _halves(blocks[..., :2]))


def _q4_0(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 18)
    return Planes(_down(blocks[..., 2:]), _halves(blocks[..., :2]))


def _q4_1(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 20)
    return Planes(_down(blocks[..., 4:]), _halves(blocks[..., :2]), more=_halves(blocks[..., 2:4]))


def _q5_0(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 22)
    return Planes(
        _down(blocks[..., 6:]), _halves(blocks[..., :2]), high=_fields(_bits(blocks[..., 2:6], 1, 8), 1)
    )


def _q5_1(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 24)
    return Planes(
        _down(blocks[..., 8:]),
        _halves(blocks[..., :2]),
        _fields(_bits(blocks[..., 4:8], 1, 8), 1),
        _halves(blocks[..., 2:4]),
    )


def _u4(group: int) -> Callable[[Tensor], Planes]:
    def pack(data: Tensor) -> Planes:
        blocks = data.view(len(data), -1, 3 + group // 2)
        return Planes(_down(blocks[..., 3:]), _halves(blocks[..., :2]), more=_down(blocks[..., 2:3]))

    return pack


def _q4_k(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 144)
    codes = _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return _k_planes(blocks, _paired(codes), None)


def _q5_k(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 176)
    codes = _nibbles(blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32))
    return _k_planes(blocks, _paired(codes), _fields(_ones(blocks[..., 16:48]), 1))


def _k_planes(blocks: Tensor, codes: Tensor, high: Tensor | None) -> Planes:
    return Planes(
        codes, _halves(blocks[..., :2]), high, _halves(blocks[..., 2:4]), factors=_down(blocks[..., 4:16])
    )


def _q6_k(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 210)
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64))
    high = _fields(_twos(blocks[..., 128:192]), 2)
    return Planes(_paired(low), _halves(blocks[..., 208:]), high, factors=_down(blocks[..., 192:208]))


def _q2_k(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 84)
    codes = _fields(_twos(blocks[..., 16:80]), 2)
    scale, least = _halves(blocks[..., 80:82]), _halves(blocks[..., 82:])
    return Planes(codes, scale, more=least, factors=_down(blocks[..., :16]))


def _q3_k(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 110)
    third = _fields(_ones(blocks[..., :32]), 1)
    codes = _fields(_twos(blocks[..., 32:96]), 2)
    return Planes(codes, _halves(blocks[..., 108:]), third, factors=_down(blocks[..., 96:108]))


def _iq4_xs(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 136)
    return Planes(_down(blocks[..., 8:]), _halves(blocks[..., :2]), factors=_down(blocks[..., 2:8]))


def _with_table(pack: Callable[[Tensor], Planes], values: Tensor) -> Callable[[Tensor], Planes]:
    def packed(data: Tensor) -> Planes:
        planes = pack(data)
        return replace(planes, table=values.to(data.device))

    return packed


def _mxfp4(data: Tensor) -> Planes:
    blocks = data.view(len(data), -1, 17)
    return Planes(_down(blocks[..., 1:]), _down(blocks[..., :1]))


def _down(parts: Tensor) -> Tensor:
    """[outputs, blocks, n] -> [blocks * n, outputs]."""
    return parts.reshape(len(parts), -1).T.contiguous()


def _halves(parts: Tensor) -> Tensor:
    """uint8 [outputs, blocks, 2] -> float16 [blocks, outputs]."""
    return parts.contiguous().view(torch.float16)[..., 0].T.contiguous()


def _nibbles(data: Tensor) -> Tensor:
    """See `outrider.formats.blocks.nibbles`."""
    return torch.cat([data & 15, data >> 4], dim=-1)


def _bits(data: Tensor, width: int, count: int) -> Tensor:
    """The numbers of `width` bits in bytes [outputs, blocks, n], byte by byte and lowest first."""
    shifts = torch.arange(0, width * count, width, dtype=torch.uint8, device=data.device)
    return (data[..., None] >> shifts & (1 << width) - 1).flatten(-2)


def _ones(data: Tensor) -> Tensor:
    """Bits by input: the lowest of all bytes [outputs, blocks, 32], then the next."""
    return data[..., None, :] >> torch.arange(8, dtype=torch.uint8, device=data.device)[:, None] & 1


def _twos(data: Tensor) -> Tensor:
    """Numbers of 2 bits, by input: in bytes [outputs, blocks, 64] those of the first 32, then the others."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8, device=data.device)[:, None]
    return data.reshape(*data.shape[:2], 2, 1, 32) >> shifts & 3


def _paired(codes: Tensor) -> Tensor:
    """Codes of 4 bits, by input, as Q4_0 has them: those of a group's second half in the upper nibbles."""
    groups = codes.reshape(len(codes), -1, 2, GROUP // 2)
    return _down(groups[:, :, 0] | groups[:, :, 1] << 4)


def _fields(values: Tensor, bits: int) -> Tensor:
    """Numbers of so many bits, by input, in 4 * bits bytes a group.

    Input k of a half lies in byte k % bytes, the first half in the lower nibble.
    """
    count = 4 * bits
    parts = values.reshape(len(values), -1, 2, 16 // count, count)
    chunk = torch.arange(0, 4, bits, dtype=torch.uint8, device=values.device)
    half = torch.tensor([[0], [4]], dtype=torch.uint8, device=values.device)
    shifted = parts << (half + chunk)[..., None]
    return _down(shifted.sum(dim=(2, 3), dtype=torch.uint8))


GPU_FORMATS: dict[str, GpuFormat] = {
    "F32": GpuFormat(_floats(torch.float32), tile=32),
    "F16": GpuFormat(_floats(torch.float16), tile=64),
    "BF16": GpuFormat(_floats(torch.bfloat16), tile=64),
    "Q8_CHANNEL": GpuFormat(_channels, "int8", tile=128),
    "F8_E4M3": GpuFormat(_channels, "fp8", tile=128),
    "F8_BLOCK": GpuFormat(_fp8_blocks, "fp8_block", tile=FP8_BLOCK),
    "Q8_0": GpuFormat(_q8_0, "half", bits=(8, 0)),
    "Q4_0": GpuFormat(_q4_0, "half", zero=8),
    "Q4_1": GpuFormat(_q4_1, "minimum"),
    "Q5_0": GpuFormat(_q5_0, "half", bits=(4, 1), zero=16),
    "Q5_1": GpuFormat(_q5_1, "minimum", bits=(4, 1)),
    "Q2_K": GpuFormat(_q2_k, "k2", bits=(2, 0)),
    "Q3_K": GpuFormat(_q3_k, "k3", bits=(2, 1), zero=4),
    "Q4_K": GpuFormat(_q4_k, "k"),
    "Q5_K": GpuFormat(_q5_k, "k", bits=(4, 1)),
    "Q6_K": GpuFormat(_q6_k, "k6", bits=(4, 2), zero=32),
    "IQ4_NL": GpuFormat(_with_table(_q4_0, torch.from_numpy(IQ4_VALUES)), "half"),
    "IQ4_XS": GpuFormat(_with_table(_iq4_xs, torch.from_numpy(IQ4_VALUES)), "xs"),
    "MXFP4": GpuFormat(_with_table(_mxfp4, torch.from_numpy(E2M1_DOUBLES)), "power"),
    "U4_32": GpuFormat(_u4(32), "zero"),
    "U4_64": GpuFormat(_u4(64), "zero", per=2),
    "U4_128": GpuFormat(_u4(128), "zero", per=4),
}
"""By the format's name."""
