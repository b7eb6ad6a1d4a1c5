"""The weight formats that there are, by name."""

from __future__ import annotations

from outrider.formats.channel import F8_BLOCK, F8_E4M3, Q8_CHANNEL
from outrider.formats.floats import BF16, F16, F32
from outrider.formats.format import Format
from outrider.formats.grouped import IQ4_NL, MXFP4, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0
from outrider.formats.k_quants import IQ4_XS, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K
from outrider.formats.zero_points import U4_32, U4_64, U4_128

FORMATS: dict[str, Format] = {
    format.name: format
    for format in (
        *(F32, F16, BF16),
        *(Q8_0, Q4_0, Q4_1, Q5_0, Q5_1),
        *(Q2_K, Q3_K, Q4_K, Q5_K, Q6_K),
        *(IQ4_NL, IQ4_XS, MXFP4),
        *(Q8_CHANNEL, F8_E4M3, F8_BLOCK),
        *(U4_32, U4_64, U4_128),
    )
}
