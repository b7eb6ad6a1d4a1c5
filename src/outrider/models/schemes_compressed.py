"""compressed-tensors: integers of 4 and 8 bits for weights alone, and FP8, as llm-compressor stores them.

`pack-quantized` has weight_packed [outputs, inputs / 8] of eight 4-bit codes a word, or four of 8 bits, each
with half of their range added; weight_zero_point is packed alike, along the outputs. `int-quantized` has int8
codes as `weight`, `float-quantized` e4m3 ones. weight_scale is of groups, outputs, blocks or the tensor. A
weight is scale * (code - zero).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.formats.channel import Q8_CHANNEL
from outrider.formats.weight import Weight
from outrider.messages import shown
from outrider.models.schemes_fp8 import (
    CODES,
    SCALE,
    UNREAD,
    block_sizes,
    block_weight,
    scaled_weight,
    tell_activations,
)
from outrider.models.schemes_grouped import Codes, GroupedTensor, Groups, check_group, columns_of, unpack
from outrider.models.schemes_layer import Scheme, StoredLayer
from outrider.models.schemes_settings import SchemeSettings
from outrider.models.shards import FLOATS, RawTensor
from outrider.models.stored import MadeTensor, StoredTensor

PACKED, ZERO, INDEX, SHAPE = "weight_packed", "weight_zero_point", "weight_g_idx", "weight_shape"
PATTERN = "re:"  # what a target begins with that is a regular expression
PARTS = frozenset({PACKED, SCALE, ZERO, INDEX, SHAPE, "input_scale", "input_zero_point"})
WRITTEN = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision")


@dataclass(frozen=True)
class _Group:
    """How some layers are stored. targets: names of layers, patterns of them, and names of classes."""

    targets: Sequence[str]
    weights: Mapping[str, Any]
    block: tuple[int, int] | None

    @property
    def is_float(self) -> bool:
        return self.weights.get("type") == "float"


def compressed(settings: SchemeSettings) -> Scheme:
    settings.need("format", *WRITTEN)
    sparsity = settings.values.get("sparsity_config") or {}
    if not isinstance(sparsity, Mapping) or sparsity.get("format", "dense") != "dense":
        raise settings.unsupported(f"sparsity_config = {shown(sparsity)}; dense weights are supported")
    if transforms := settings.values.get("transform_config"):
        raise settings.unsupported(f"transform_config = {shown(transforms)}; none is supported")
    stored = settings.values.get("config_groups")
    if not isinstance(stored, Mapping) or not stored:
        raise settings.unsupported(f"config_groups = {shown(stored)}; it has to say how layers are stored")
    groups = [_group(settings, group) for group in stored.values()]
    return Scheme(PARTS, partial(_weight, groups), frozenset({CODES, "I8"}), UNREAD)


def _group(settings: SchemeSettings, stored: Any) -> _Group:
    stored = stored if isinstance(stored, Mapping) else {}
    weights, targets = stored.get("weights"), stored.get("targets")
    if not isinstance(weights, Mapping) or not isinstance(targets, list):
        raise settings.unsupported(
            f"a group of layers that is {shown(stored)}; 'weights' and 'targets' are needed"
        )
    kind, bits = weights.get("type", "int"), weights.get("num_bits", 8)
    if type(bits) is not int or (kind, bits) not in (("int", 4), ("int", 8), ("float", 8)):
        raise settings.unsupported(
            f"weights of type {shown(kind)} and {shown(bits)} bits; supported are int of 4 or 8, float of 8"
        )
    if stored.get("output_activations") or (stored.get("input_activations") and kind == "int"):
        raise settings.unsupported(
            "activations that are quantised to integers too, which changes what is computed; get the model "
            "with weights of 4 or 8 bits alone (W4A16, W8A16), or in FP8"
        )
    if stored.get("input_activations"):
        tell_activations(settings)
    for target in targets:
        _check_target(settings, target)
    blocks = weights.get("block_structure") if weights.get("strategy") == "block" else None
    return _Group(targets, weights, None if blocks is None else block_sizes(settings, blocks))


def _check_target(settings: SchemeSettings, target: Any) -> None:
    try:
        re.compile(target.removeprefix(PATTERN))
    except (AttributeError, re.error):
        raise settings.unsupported(
            f"layers {shown(target)}; names and regular expressions are needed"
        ) from None


def _weight(groups: Sequence[_Group], layer: StoredLayer) -> StoredTensor:
    group = _group_of(groups, layer.name)
    if group.is_float:
        return scaled_weight(layer) if group.block is None else block_weight(group.block, SCALE, layer)
    if layer.parts.keys() & {PACKED, SHAPE}:
        return _packed(layer, group.weights)
    return _unpacked(layer, group.weights)


def _group_of(groups: Sequence[_Group], name: str) -> _Group:
    """That whose targets name the layer, else one of a whole class of layers."""
    for group in groups:
        for target in group.targets:
            if target == name or (target.startswith(PATTERN) and re.match(target[len(PATTERN) :], name)):
                return group
    of_classes = [
        group for group in groups if any("." not in t and not t.startswith(PATTERN) for t in group.targets)
    ]
    return (of_classes or groups)[0]


def _packed(layer: StoredLayer, weights: Mapping[str, Any]) -> StoredTensor:
    bits: int = weights.get("num_bits", 8)
    words = layer.matrix(PACKED, "I32")
    outputs, inputs = words.shape[0], words.shape[1] * (32 // bits)
    stated = layer.shaped(SHAPE, (2,), "I64", "I32")

    def codes(first: int, last: int) -> Codes:
        if stated.array().tolist() != [outputs, inputs]:
            raise layer.error(SHAPE, f"is {stated.array().tolist()}; '{PACKED}' implies {[outputs, inputs]}")
        return unpack(words.array()[first:last], bits)

    return _integers(layer, weights, bits, (outputs, inputs), codes)


def _unpacked(layer: StoredLayer, weights: Mapping[str, Any]) -> StoredTensor:
    stored = layer.matrix("weight", "I8")

    def codes(first: int, last: int) -> Codes:
        numbers: NDArray[np.int8] = stored.array()[first:last]
        return numbers.view(np.uint8) ^ np.uint8(128)

    return _integers(layer, weights, 8, (stored.shape[0], stored.shape[1]), codes)


def _integers(
    layer: StoredLayer,
    weights: Mapping[str, Any],
    bits: int,
    shape: tuple[int, int],
    codes: Callable[[int, int], Codes],
) -> StoredTensor:
    """The weight of codes from 0 to 2 ** bits - 1, of which the middle is zero where no zero points are."""
    outputs, inputs = shape
    scale = layer.part(SCALE, *FLOATS)
    zeros = _zeros(layer, weights, bits, outputs)
    if bits == 8 and scale.shape in ((), (1,), (1, 1), (outputs,), (outputs, 1)):

        def make() -> Weight:
            scales = np.broadcast_to(scale.floats().reshape(-1, 1), (outputs, 1)).astype("<f4")
            signed = codes(0, outputs) ^ np.uint8(128)
            return Weight(Q8_CHANNEL, np.concatenate([scales.view(np.uint8), signed], axis=1), inputs)

        return MadeTensor(layer.weight_name, shape, Q8_CHANNEL, layer.file, make, layer.sources)
    layer.shaped(SCALE, (outputs, scale.shape[-1] if scale.shape else 1), *FLOATS)
    group = check_group(layer, SCALE, inputs, scale.shape[1])
    said = weights.get("group_size")
    if said not in (None, -1, group):
        raise layer.error(SCALE, f"has groups of {group} inputs; config.json says {shown(said)}")
    index = _index(layer, weights, inputs)

    def read() -> Groups:
        columns = None if index is None else columns_of(layer, INDEX, group)

        def sorted_codes(first: int, last: int) -> Codes:
            found = codes(first, last)
            return found if columns is None else found[:, columns]

        return Groups(sorted_codes, zeros(inputs // group), scale.floats(), columns)

    return GroupedTensor(layer.weight_name, shape, layer.file, bits, group, scale, read, layer.sources)


def _zeros(layer: StoredLayer, weights: Mapping[str, Any], bits: int, outputs: int) -> Callable[[int], Codes]:
    """What gives the zero points [outputs, groups] of a number of groups."""
    half = 1 << (bits - 1)
    stored = ZERO in layer.parts or not weights.get("symmetric", True)
    if (
        stored
        and bits == 8
        and (layer.part(ZERO, "I32", "I8").dtype == "I32" or layer.parts[ZERO].array().any())
    ):
        raise layer.error(ZERO, "shifts codes of 8 bits, which is not supported; symmetric ones are")
    if not stored or bits == 8:
        return lambda groups: np.full((outputs, groups), half, np.uint8)
    zero = layer.matrix(ZERO, "I32", "I8")

    def zeros(groups: int) -> Codes:
        packed = zero.dtype == "I32"
        layer.shaped(ZERO, (-(-outputs // 8) if packed else outputs, groups), zero.dtype)
        if packed:
            return unpack(zero.array().T, bits).T[:outputs]
        return (zero.array() + np.int8(half)).view(np.uint8)

    return zeros


def _index(layer: StoredLayer, weights: Mapping[str, Any], inputs: int) -> RawTensor | None:
    """The group of each input; None where they are in order, which a tensor of -1 says too."""
    if INDEX not in layer.parts and weights.get("actorder") not in (True, "group", "dynamic"):
        return None
    index = layer.shaped(INDEX, (inputs,), "I32", "I64")
    return None if (index.array() == -1).all() else index
