"""How much memory a packed weight takes, without packing it."""

from __future__ import annotations

from outrider.quantization.weight import GROUP, Format

PANEL = 16  # outputs that lie together
LINE = 64  # bytes of a cache line, which scales fill up to the end
CODE_BITS: dict[Format, int] = {
    "float32": 32,
    "bfloat16": 16,
    "int8": 8,
    "int8_channel": 8,
    "int4": 4,
    "int4_min": 4,
}


def packed_bytes(format: Format, outputs: int, inputs: int) -> int:
    """Of a weight [outputs, inputs] as native/matrix.cpp lays it out, which pads to panels and groups."""
    groups = -(-inputs // GROUP)
    scales = {"int8": 2 * groups, "int4": 2 * groups, "int4_min": 4 * groups, "int8_channel": 4}
    head = -(-scales.get(format, 0) * PANEL // LINE) * LINE
    codes = groups * GROUP * PANEL * CODE_BITS[format] // 8
    return -(-outputs // PANEL) * (head + codes)
