"""FP8 weights (e4m3) with scales of a tensor, of each output, or of blocks.

DeepSeek's `fp8` has weight_scale_inv [outputs / 128, inputs / 128]; `fbgemm_fp8` and others have
weight_scale: one number, or one for each output. A weight is scale * value.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np

from outrider.formats.channel import F8_BLOCK, F8_E4M3, FP8_BLOCK
from outrider.formats.format import Bytes, Floats
from outrider.formats.weight import Weight
from outrider.messages import shown
from outrider.models.schemes_layer import Scheme, StoredLayer
from outrider.models.schemes_settings import SchemeSettings
from outrider.models.shards import FLOATS
from outrider.models.stored import MadeTensor, StoredTensor

logger = logging.getLogger(__name__)

CODES = "F8_E4M3"  # safetensors' name of the type
SCALE, SCALE_INV = "weight_scale", "weight_scale_inv"
UNREAD = frozenset({"k_scale", "v_scale", "q_scale", "kv_scale", "prob_scale"})
PARTS = frozenset({SCALE, SCALE_INV, "input_scale", "input_scale_ub"})


def fp8(settings: SchemeSettings) -> Scheme:
    settings.need("fmt", "e4m3", None)
    blocks = settings.values.get("weight_block_size")
    tell_activations(settings)
    if blocks is None:
        return Scheme(PARTS, scaled_weight, frozenset({CODES}), UNREAD)
    return Scheme(
        PARTS, partial(block_weight, block_sizes(settings, blocks), SCALE_INV), frozenset({CODES}), UNREAD
    )


def fbgemm(settings: SchemeSettings) -> Scheme:
    tell_activations(settings)
    return Scheme(PARTS, scaled_weight, frozenset({CODES}))


def tell_activations(settings: SchemeSettings) -> None:
    """Say once that a model is computed with better than its scheme does."""
    logger.warning(
        "%s: activations stay as they are; %s would round them too", settings.folder, settings.method
    )


def scaled_weight(layer: StoredLayer) -> StoredTensor:
    """A weight with one scale, or with one for each output."""
    codes, scale = layer.matrix("weight", CODES), layer.part(SCALE, *FLOATS)
    outputs = codes.shape[0]
    if scale.shape not in ((), (1,), (1, 1), (outputs,), (outputs, 1)):
        raise layer.error(SCALE, f"has shape {scale.shape}; it has to be one number, or {outputs}")

    def make() -> Weight:
        scales = np.broadcast_to(scale.floats().reshape(-1, 1), (outputs, 1))
        data = np.concatenate([scales.astype("<f4").view(np.uint8), codes.array()], axis=1)
        return Weight(F8_E4M3, data, codes.shape[1])

    return MadeTensor(layer.weight_name, codes.shape, F8_E4M3, layer.file, make, layer.sources)


def block_weight(block: tuple[int, int], end: str, layer: StoredLayer) -> StoredTensor:
    """A weight with a scale for blocks of `block` outputs and inputs. end: of the name of the scales."""
    codes = layer.matrix("weight", CODES)
    (outputs, inputs), (rows, columns) = codes.shape, block
    scale = layer.shaped(end, (-(-outputs // rows), -(-inputs // columns)), *FLOATS)

    def make() -> Weight:
        scales = np.repeat(np.repeat(scale.floats(), rows, axis=0), columns // FP8_BLOCK, axis=1)
        return Weight(F8_BLOCK, _block_rows(codes.array(), scales), inputs)

    return MadeTensor(layer.weight_name, codes.shape, F8_BLOCK, layer.file, make, layer.sources)


def _block_rows(codes: Bytes, scales: Floats) -> Bytes:
    """Rows of F8_BLOCK. scales: at least as many as there are outputs, and blocks of 128 inputs."""
    outputs, inputs = codes.shape
    count = -(-inputs // FP8_BLOCK)
    padded = np.pad(codes, ((0, 0), (0, count * FP8_BLOCK - inputs))).reshape(outputs, count, FP8_BLOCK)
    factors = scales[:outputs, :count, None].astype("<f4").view(np.uint8)
    return np.concatenate([factors, padded], axis=-1).reshape(outputs, -1)


def block_sizes(settings: SchemeSettings, blocks: Any) -> tuple[int, int]:
    """Outputs and inputs that share a scale."""
    whole = isinstance(blocks, list) and len(blocks) == 2 and all(type(size) is int for size in blocks)
    if not whole or blocks[0] < 1 or blocks[1] < 1 or blocks[1] % FP8_BLOCK:
        raise settings.unsupported(
            f"blocks of {shown(blocks)}; supported are [outputs, inputs], inputs a multiple of {FP8_BLOCK}"
        )
    return blocks[0], blocks[1]
