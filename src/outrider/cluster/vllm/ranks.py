"""What one process of vLLM holds of a model: some of its layers, and a share of each of their matrices.

A rank is a smaller model, so that it is planned as a model is. Layers are divided as `get_pp_indices` of
vLLM's `distributed/utils.py` does it, and matrices as its `model_executor/layers/linear.py` (Shoeybi et al.,
2019, Megatron-LM): by heads, and by numbers within a feed-forward; routers and norms are on every rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from functools import singledispatch
from itertools import accumulate
from math import ceil
from types import MappingProxyType
from typing import Any, cast

from outrider.models.head_parts import HeadParts
from outrider.models.leaves import Linear, Stack, Table, Tied, Vector
from outrider.models.parts import Attention, Decoder, Experts, Gated
from outrider.models.recurrent_parts import DeltaNet, ShortConvolution
from outrider.models.tensors import Tensor
from outrider.ops.shapes import AttentionShape, ConvShape, DeltaShape

PADDED = 64  # words that a table's number of rows is filled up to a multiple of
OUTPUTS: Mapping[type, tuple[str, ...]] = MappingProxyType(
    {
        Attention: ("qkv", "gate"),
        DeltaNet: ("qkv", "gate", "write", "forget"),
        Experts: ("gates", "ups"),
        Gated: ("gate", "up"),
        HeadParts: ("qkv_embedding", "qkv_state"),
        ShortConvolution: ("before", "after", "x"),
    }
)
"""The matrices of a part of which each rank computes some outputs."""
INPUTS: Mapping[type, tuple[str, ...]] = MappingProxyType(
    {
        Attention: ("out",),
        DeltaNet: ("out",),
        Experts: ("downs",),
        Gated: ("down",),
        HeadParts: ("out",),
        ShortConvolution: ("out",),
    }
)
"""The matrices of a part of which each rank reads some inputs; what they come to is added up."""


def layers_of(count: int, stages: int) -> list[range]:
    """The layers of each stage of a pipeline. What is left over goes to stages from the last but one back."""
    each, left = divmod(count, stages)
    sizes = [each + (stages - 1 - left <= number < stages - 1) for number in range(stages)]
    ends = [*accumulate(sizes)]
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def stage_of(tree: Decoder, number: int, stages: int) -> Decoder:
    """The decoder of one stage: a table of no rows stands where it has none."""
    layers = layers_of(len(tree.blocks), stages)[number]
    first, last = number == 0, number == stages - 1
    table = tree.table if first or (last and tree.tied) else _no_rows(tree.table)
    return replace(
        tree,
        table=table,
        output=tree.output if last and not tree.tied else Tied(table),
        blocks=tree.blocks[layers.start : layers.stop],
        per_layer=tree.per_layer if first else None,
    )


def _no_rows(table: Table) -> Table:
    return Table(replace(table.tensor, shape=(0, *table.tensor.shape[1:])))


@singledispatch
def share_of(part: Any, ranks: int) -> Any:
    """What each of so many ranks holds of a part, or of several, whose matrices they share."""
    if not is_dataclass(part):
        return part
    outputs, inputs = OUTPUTS.get(type(part), ()), INPUTS.get(type(part), ())
    shares: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if value is None:
            shares[field.name] = None
        elif field.name in outputs:
            shares[field.name] = _cut(value, _ways(part, value, ranks), axis=0)
        elif field.name in inputs:
            shares[field.name] = _cut(value, [ranks] * len(value.matrices), axis=1)
        elif field.name == "output" and isinstance(value, Linear):
            words = replace(value, matrices=tuple(map(_padded, value.matrices)))
            shares[field.name] = _cut(words, [ranks], axis=0)
        else:
            shares[field.name] = share_of(value, ranks)
    return replace(cast(Any, part), **shares)


@share_of.register
def _(part: tuple, ranks: int) -> Any:  # type: ignore[type-arg]
    return tuple(share_of(one, ranks) for one in part)


@share_of.register(Linear)
@share_of.register(Stack)
@share_of.register(Vector)
def _(part: Any, ranks: int) -> Any:
    """All of it, where no part says otherwise."""
    return part


@share_of.register
def _(part: Table, ranks: int) -> Table:
    return Table(_share_of_tensor(_padded(part.tensor), ranks, axis=0))


@share_of.register
def _(part: AttentionShape, ranks: int) -> AttentionShape:
    return replace(part, heads=part.heads // ranks, kv_heads=max(1, part.kv_heads // ranks))


@share_of.register
def _(part: DeltaShape, ranks: int) -> DeltaShape:
    return replace(part, key_heads=part.key_heads // ranks, value_heads=part.value_heads // ranks)


@share_of.register
def _(part: ConvShape, ranks: int) -> ConvShape:
    return replace(part, channels=part.channels // ranks)


def _ways(part: Any, layer: Linear | Stack, ranks: int) -> list[int]:
    """Into how many shares each matrix is divided. Heads of K and V are not: where there are more ranks, some
    hold the same one."""
    shape, others = getattr(part, "shape", None), len(layer.matrices) - 1
    return [ranks] + [min(ranks, shape.kv_heads) if isinstance(shape, AttentionShape) else ranks] * others


def _cut(layer: Linear | Stack, ways: Sequence[int], *, axis: int) -> Linear | Stack:
    shares = (_share_of_tensor(*one, axis=axis) for one in zip(layer.matrices, ways, strict=True))
    return replace(layer, matrices=tuple(shares))


def _share_of_tensor(tensor: Tensor, ways: int, *, axis: int) -> Tensor:
    shape = list(tensor.shape)
    shape[axis] = ceil(shape[axis] / ways)
    return replace(tensor, shape=tuple(shape))


def _padded(tensor: Tensor) -> Tensor:
    """A matrix with a row for each word, filled up as vLLM does it."""
    return replace(tensor, shape=(ceil(tensor.shape[0] / PADDED) * PADDED, *tensor.shape[1:]))
