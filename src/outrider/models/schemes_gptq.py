"""GPTQ in 4 bits (Frantar et al. 2023), as AutoGPTQ and GPTQModel store it.

qweight [inputs / 8, outputs] has eight inputs in a word, qzeros [groups, outputs / 8] eight outputs; scales
[groups, outputs]; g_idx [inputs] is the group of each input. A weight is scale * (code - zero). A zero point
is stored as one less, but not in the format `gptq_v2`.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from outrider.models.schemes_grouped import Codes, GroupedTensor, Groups, check_group, columns_of, unpack
from outrider.models.schemes_layer import Scheme, StoredLayer
from outrider.models.schemes_settings import SchemeSettings
from outrider.models.shards import FLOATS
from outrider.models.stored import StoredTensor

PACKED = 8  # inputs, or outputs, in a word


def gptq(settings: SchemeSettings) -> Scheme:
    settings.need("bits", 4, default=4)
    key = "checkpoint_format" if "checkpoint_format" in settings.values else "format"
    written = settings.need(key, "gptq", "gptq_v2", default="gptq")
    above = 0 if written.lower() == "gptq_v2" else 1
    ordered = bool(settings.values.get("desc_act"))
    return Scheme(frozenset({"qweight", "qzeros", "scales", "g_idx"}), partial(_weight, above, ordered))


def _weight(above: int, ordered: bool, layer: StoredLayer) -> StoredTensor:
    """above: what is to be added to zero points; ordered: whether there has to be a `g_idx`."""
    words, scales = layer.matrix("qweight", "I32"), layer.matrix("scales", *FLOATS)
    inputs, (groups, outputs) = words.shape[0] * PACKED, scales.shape
    layer.shaped("qweight", (words.shape[0], outputs), "I32")
    zeros = layer.shaped("qzeros", (groups, -(-outputs // PACKED)), "I32")
    group = check_group(layer, "scales", inputs, groups)
    index = layer.shaped("g_idx", (inputs,), "I32") if ordered or "g_idx" in layer.parts else None

    def read() -> Groups:
        packed: NDArray[np.int32] = words.array()
        columns = None if index is None else columns_of(layer, "g_idx", group)

        def codes(first: int, last: int) -> Codes:
            found = unpack(packed[:, first:last].T, 4)
            return found if columns is None else found[:, columns]

        stored = unpack(zeros.array(), 4)[:, :outputs].T + np.uint8(above)
        return Groups(codes, stored, np.ascontiguousarray(scales.floats().T), columns)

    shape = (outputs, inputs)
    return GroupedTensor(layer.weight_name, shape, layer.file, 4, group, scales, read, layer.sources)
