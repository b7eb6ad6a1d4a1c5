"""Settings that a GGUF file has for two kinds of layers: those with a window ('_swa'), and those that see
all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from outrider.errors import ModelError
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_rope import Tensors
from outrider.models.settings import FULL, SLIDING


def settings_of_kinds(
    metadata: Metadata, gguf: str, tensors: Tensors, types: Sequence[str], heads: int
) -> dict[str, Any]:
    """The sizes of both kinds by the names of config.json.

    gguf: the architecture, which keys begin with. types: of the layers. heads: of each. Raises ModelError for
    what does not fit the tensors, and where layers of a kind differ."""
    local, wide = (_head_dim(metadata, gguf, end) for end in ("_swa", ""))
    for kind, dims in ((SLIDING, local), (FULL, wide)):
        if kind in types:
            _check_heads(metadata, gguf, tensors, types.index(kind), heads, dims)
    key = f"{gguf}.attention.shared_kv_layers"
    shared = metadata.integer(key, 0)
    if shared >= len(types):
        raise metadata.wrong(key, f"it has to be less than block_count, which is {len(types)}")
    own = [layer for layer in range(len(types) - shared) if types[layer] == FULL]
    kv_heads = _each(metadata, f"{gguf}.attention.head_count_kv", len(types))
    inner = _each(metadata, f"{gguf}.feed_forward_length", len(types))
    ends = inner[: len(types) - shared], inner[len(types) - shared :]
    if any(len({*end}) > 1 for end in ends) or inner[-1] not in (inner[0], 2 * inner[0]):
        raise metadata.wrong(
            f"{gguf}.feed_forward_length",
            "it has to be one number, and the same or twice as much in layers that share K and V",
        )
    return {
        "head_dim": local,
        "global_head_dim": wide,
        "num_key_value_heads": _of_kind(metadata, gguf, kv_heads, types, SLIDING),
        "num_global_key_value_heads": _of_kind(metadata, gguf, kv_heads, types, FULL),
        "attention_k_eq_v": any(f"blk.{layer}.attn_v.weight" not in tensors for layer in own),
        "intermediate_size": inner[0],
        "use_double_wide_mlp": inner[-1] != inner[0],
    }


def _head_dim(metadata: Metadata, gguf: str, end: str) -> int:
    """Dimensions of a head, which all turn."""
    key = f"{gguf}.attention.key_length{end}"
    dims = metadata.integer(key)
    for other in (f"attention.value_length{end}", f"rope.dimension_count{end}"):
        if metadata.integer(f"{gguf}.{other}", dims) != dims:
            raise metadata.wrong(f"{gguf}.{other}", f"it has to be {key}, which is {dims}")
    return dims


def _check_heads(metadata: Metadata, gguf: str, tensors: Tensors, layer: int, heads: int, dims: int) -> None:
    output = tensors.get(f"blk.{layer}.attn_output.weight")
    if output is not None and heads * dims != output.shape[-1]:
        raise ModelError(
            f"{metadata.source}: {gguf}.attention.head_count = {heads}, of {dims} dimensions each, "
            f"does not fit tensor {output.name!r} of shape {output.shape}"
        )


def _each(metadata: Metadata, key: str, layers: int) -> list[int]:
    """A number of each layer, which may be told once."""
    if not isinstance(metadata.get(key), list):
        return [metadata.integer(key)] * layers
    found = metadata.integers(key)
    if len(found) != layers:
        raise metadata.wrong(key, f"it has to be a number for each of {layers} layers")
    return found


def _of_kind(metadata: Metadata, gguf: str, each: list[int], types: Sequence[str], kind: str) -> int:
    found = {number for number, own in zip(each, types, strict=True) if own == kind} or {each[0]}
    if len(found) > 1:
        raise metadata.wrong(
            f"{gguf}.attention.head_count_kv", f"it has to be the same for all layers of type {kind!r}"
        )
    return found.pop()
