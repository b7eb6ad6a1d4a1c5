"""The experts of gpt-oss in MXFP4 (Rouhani et al., 2023: Microscaling Data Formats), as OpenAI stores them.

NAME_blocks, uint8 [experts, outputs, groups, 16], has the 32 codes of a group, of two neighbours the first in
the low nibble; NAME_scales, uint8 [experts, outputs, groups], the exponent of each group. They become a
weight for each expert, `experts.N.NAME.weight`, in GGUF's layout, which parts a group's codes in the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from outrider.errors import ModelError
from outrider.formats.format import Bytes
from outrider.formats.grouped import MXFP4
from outrider.formats.weight import Weight
from outrider.models.schemes_layer import Scheme, StoredLayer
from outrider.models.schemes_settings import SchemeSettings
from outrider.models.shards import RawTensor
from outrider.models.stored import MadeTensor, StoredTensor

BLOCKS, SCALES = "_blocks", "_scales"
HALF, LOW, HIGH = np.dtype("<u8"), np.uint64(0x0F0F0F0F0F0F0F0F), np.uint64(0xF0F0F0F0F0F0F0F0)
FOUR = np.uint64(4)


def mxfp4(settings: SchemeSettings) -> Scheme:
    return StackScheme(frozenset({"blocks", "scales"}), expert_weight)


@dataclass(frozen=True)
class StackScheme(Scheme):
    """A scheme that stores the layers of all experts in one tensor of each part."""

    def is_used(self, tensors: Mapping[str, RawTensor]) -> bool:
        return any(name.endswith(BLOCKS) for name in tensors)

    def apply(
        self, tensors: Mapping[str, RawTensor], plain: Callable[[RawTensor], StoredTensor]
    ) -> dict[str, StoredTensor]:
        made: dict[str, StoredTensor] = {}
        for name, tensor in tensors.items():
            stem = name.removesuffix(BLOCKS)
            if stem != name:
                for layer in _layers(stem, tensor, tensors.get(stem + SCALES)):
                    made[layer.weight_name] = expert_weight(layer)
            elif not (name.endswith(SCALES) and name.removesuffix(SCALES) + BLOCKS in tensors):
                made[name] = plain(tensor)
        return made


def _layers(stem: str, blocks: RawTensor, scales: RawTensor | None) -> Iterator[StoredLayer]:
    """The parts of the weight of each expert. Raises ModelError where they do not belong together."""
    shape = blocks.shape
    if blocks.dtype != "U8" or len(shape) != 4 or shape[3] != 16 or not all(shape):
        raise ModelError(
            f"{blocks.file}: tensor {blocks.name!r} is of type {blocks.dtype} and shape {shape}; it has to "
            "be U8 [experts, outputs, groups, 16]"
        )
    if scales is None or scales.dtype != "U8" or scales.shape != shape[:3]:
        found = "missing" if scales is None else f"of type {scales.dtype} and shape {scales.shape}"
        raise ModelError(
            f"{blocks.file}: tensor '{stem}{SCALES}' is {found}; '{blocks.name}' implies U8 {shape[:3]}"
        )
    scope, _, name = stem.rpartition(".")
    for expert in range(shape[0]):
        parts = {"blocks": _of(expert, blocks), "scales": _of(expert, scales)}
        yield StoredLayer(f"{scope}.{expert}.{name}", parts)


def _of(expert: int, stack: RawTensor) -> RawTensor:
    size = len(stack.data) // stack.shape[0]
    own = stack.data[expert * size : (expert + 1) * size]
    return replace(stack, shape=stack.shape[1:], data=own)


def expert_weight(layer: StoredLayer) -> StoredTensor:
    blocks, scales = layer.parts["blocks"], layer.parts["scales"]
    outputs, groups = scales.shape
    inputs = groups * MXFP4.block

    def make() -> Weight:
        data = np.concatenate([scales.array()[..., None], _parted(blocks.array())], axis=-1)
        return Weight(MXFP4, data.reshape(outputs, -1), inputs)

    return MadeTensor(layer.weight_name, (outputs, inputs), MXFP4, layer.file, make, layer.sources)


def _parted(codes: Bytes) -> Bytes:
    """Codes [..., 16], neighbours in a byte, as bytes of a code and the one that is 16 further on."""
    halves = codes.view(HALF)
    first, second = halves[..., 0], halves[..., 1]
    even = first & LOW | (second & LOW) << FOUR
    odd = first >> FOUR & LOW | second & HIGH
    parted: Bytes = np.stack([even[..., None].view(np.uint8), odd[..., None].view(np.uint8)], axis=-1)
    return parted.reshape(codes.shape)
