"""AWQ in 4 bits (Lin et al. 2024), as AutoAWQ stores it for its kernel `gemm`.

qweight [inputs, outputs / 8] and qzeros [groups, outputs / 8] have eight outputs in a word; scales [groups,
outputs]. A weight is scale * (code - zero).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from outrider.models.schemes_grouped import Codes, GroupedTensor, Groups, check_group, unpack
from outrider.models.schemes_layer import Scheme, StoredLayer
from outrider.models.schemes_settings import SchemeSettings
from outrider.models.shards import FLOATS
from outrider.models.stored import StoredTensor

PACKED = 8  # outputs in a word
PLACES = [0, 4, 1, 5, 2, 6, 3, 7]  # of each output among a word's codes, which are outputs 0 2 4 6 1 3 5 7


def awq(settings: SchemeSettings) -> Scheme:
    settings.need("bits", 4, default=4)
    settings.need("version", "gemm", default="gemm")
    settings.need("zero_point", True, default=True)
    return Scheme(frozenset({"qweight", "qzeros", "scales"}), _weight)


def _weight(layer: StoredLayer) -> StoredTensor:
    words, scales = layer.matrix("qweight", "I32"), layer.matrix("scales", *FLOATS)
    (inputs, width), groups = words.shape, scales.shape[0]
    layer.shaped("scales", (groups, width * PACKED), *FLOATS)
    zeros = layer.shaped("qzeros", (groups, width), "I32")
    group = check_group(layer, "scales", inputs, groups)

    def read() -> Groups:
        packed: NDArray[np.int32] = words.array()
        return Groups(
            lambda first, last: _outputs(packed[:, first // PACKED : last // PACKED]),
            _outputs(zeros.array()),
            np.ascontiguousarray(scales.floats().T),
        )

    shape = (width * PACKED, inputs)
    return GroupedTensor(layer.weight_name, shape, layer.file, 4, group, scales, read, layer.sources)


def _outputs(words: NDArray[np.int32]) -> Codes:
    """[outputs, n] of words [n, outputs / 8]."""
    codes = unpack(words, 4).reshape(*words.shape, PACKED)[..., PLACES]
    return codes.reshape(len(words), -1).T
