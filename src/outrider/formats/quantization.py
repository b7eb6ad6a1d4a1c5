"""What weights are turned into where the user asks for fewer bits."""

from __future__ import annotations

from typing import NamedTuple

from outrider.formats.format import Format
from outrider.formats.registry import FORMATS


class FormatPair(NamedTuple):
    """The formats of linear layers, and of the table of tokens, which is often the output layer too: at 4
    bits it would cost quality."""

    linear: Format
    table: Format


QUANTIZED = {
    "int8": FormatPair(FORMATS["Q8_CHANNEL"], FORMATS["Q8_CHANNEL"]),
    "int4": FormatPair(FORMATS["Q4_0"], FORMATS["Q8_CHANNEL"]),
}
