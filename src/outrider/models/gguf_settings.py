"""A GGUF file's metadata by the names of config.json.

Every size is held against the tensors that are there: files are believed only where it costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from outrider.errors import ModelError
from outrider.models.families.family import Family
from outrider.models.gguf_keys import check_keys, check_whole
from outrider.models.gguf_kinds import settings_of_kinds
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_rope import Tensors, rope_settings
from outrider.models.gguf_vocabulary import read_vocabulary
from outrider.models.registry import family_of_gguf
from outrider.models.settings import FULL, SLIDING, Settings
from outrider.models.stored import StoredTensor

LAYER = re.compile(r"blk\.(\d+)\.")


def gguf_settings(
    values: Mapping[str, Any], tensors: Tensors, source: str, positions: int | None
) -> tuple[Family, Settings]:
    """The family of a file's model, and its settings.

    source: the file's name, for messages. positions: see `Settings`. Raises ModelError for a file that is not
    just a model of an architecture that is supported.
    """
    metadata = Metadata(values, source)
    check_whole(metadata)
    architecture = metadata.text("general.architecture", "")
    family = family_of_gguf(metadata)
    heads = metadata.integer(f"{architecture}.attention.head_count")
    embedding = _matrix(tensors, "token_embd.weight", source)
    vocab, hidden = embedding.shape
    for key, held, what in (("embedding_length", hidden, "columns"), ("vocab_size", vocab, "rows")):
        if metadata.integer(f"{architecture}.{key}", held) != held:
            raise metadata.wrong(f"{architecture}.{key}", f"tensor {embedding.name!r} has {held} {what}")
    layers = own_layers(metadata, architecture)
    there = {layer_of(name) for name in tensors} - {None}
    if layers > len(there):
        raise metadata.wrong(f"{architecture}.block_count", f"the file has tensors of {len(there)} layers")
    if family.gguf_kinds:
        types = _layer_types(metadata, family, layers) or [FULL] * layers
        sizes = settings_of_kinds(metadata, architecture, tensors, types, heads)
    else:
        sizes = {
            "intermediate_size": _inner(metadata, architecture),
            "num_key_value_heads": _kv_heads(metadata, family, layers, heads),
            "head_dim": _head_dim(metadata, family, tensors, heads, hidden),
        }
    widest = sizes.get("global_head_dim", sizes["head_dim"])
    vocabulary = read_vocabulary(metadata, vocab)
    if len(vocabulary.tokens) > vocab:
        raise ModelError(
            f"{source}: tokenizer.ggml.tokens has {len(vocabulary.tokens)} tokens; tensor {embedding.name!r} "
            f"has {vocab} rows"
        )
    found = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        **sizes,
        "rms_norm_eps": metadata.positive(f"{architecture}.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": metadata.integer(f"{architecture}.context_length"),
        "layer_types": _layer_types(metadata, family, layers),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "eos_token_id": sorted(vocabulary.ends),
        **{name: tensor in tensors for name, tensor in family.gguf_flags.items()},
        **rope_settings(metadata, architecture, tensors, widest),
    }
    if found["rope_scaling"] is not None:
        found["rope_scaling"] = {**family.gguf_rope, **found["rope_scaling"]}
    own = _own(metadata, family)
    check_keys(metadata, family, sizes["head_dim"])
    given = {hf: value for hf, value in found.items() if value is not None}
    return family, Settings({**family.gguf_fixed, **given, **own}, source, positions)


def own_layers(metadata: Metadata, architecture: str) -> int:
    """The layers of the model, behind which a file may have some that predict further tokens."""
    layers, key = metadata.integer(f"{architecture}.block_count"), f"{architecture}.nextn_predict_layers"
    drafting = metadata.integer(key, 0)
    if drafting and drafting >= layers:
        raise metadata.wrong(key, f"it has to be less than block_count, which is {layers}")
    return layers - drafting


def layer_of(name: str) -> int | None:
    """The number of the layer that a tensor belongs to."""
    match = LAYER.match(name)
    return None if match is None else int(match[1])


def _inner(metadata: Metadata, architecture: str) -> int:
    """Outputs of a feed-forward's gate, which a mixture's file may say of its experts alone."""
    key, of_experts = (f"{architecture}.{begins}feed_forward_length" for begins in ("", "expert_"))
    return metadata.integer(of_experts if key not in metadata and of_experts in metadata else key)


def _own(metadata: Metadata, family: Family) -> dict[str, Any]:
    """The family's own settings. In config.json, what is not used is null, and not 0."""
    found = {hf: metadata.get(f"{family.gguf}.{key}") for key, hf in family.gguf_settings.items()}
    return {
        hf: None if value == 0 and not isinstance(value, bool) else value
        for hf, value in found.items()
        if value is not None
    }


def _kv_heads(metadata: Metadata, family: Family, layers: int, heads: int) -> int:
    """Which some files say for each layer, as 0 where it has none."""
    key = f"{family.gguf}.attention.head_count_kv"
    if isinstance(metadata.get(key), list):
        each = metadata.integers(key)
        found = {*each} - {0} if family.gguf_states else {*each}
        if len(each) != layers or len(found) != 1:
            raise metadata.wrong(key, f"it has to be the same number for all {layers} layers")
        return found.pop()
    return metadata.integer(key, heads)


def _layer_types(metadata: Metadata, family: Family, layers: int) -> list[str] | None:
    """The kinds of layers where some have no K and V, or windows; None where the file does not say it."""
    if family.gguf_states is not None:
        return _with_states(metadata, family, family.gguf_states, layers)
    return _with_windows(metadata, family, layers)


def _with_states(metadata: Metadata, family: Family, name: str, layers: int) -> list[str] | None:
    """Which layers have no K and V, by flags or by their K/V heads."""
    key, heads = (f"{family.gguf}.attention.{end}" for end in ("recurrent_layers", "head_count_kv"))
    flags = metadata.get(key)
    if flags is None and isinstance(metadata.get(heads), list):
        flags = [count == 0 for count in metadata.integers(heads)]
    if flags is None:
        return None
    if not isinstance(flags, list) or len(flags) < layers or not all(isinstance(one, bool) for one in flags):
        raise metadata.wrong(key, f"it has to be true or false for each of {layers} layers")
    return [name if without else FULL for without in flags[:layers]]


def _with_windows(metadata: Metadata, family: Family, layers: int) -> list[str] | None:
    """Which layers have a window, each by itself, or all but every n-th."""
    key = f"{family.gguf}.attention.sliding_window_pattern"
    if key not in metadata or "attention.sliding_window" not in family.gguf_settings:
        return None
    pattern = metadata.get(key)
    if isinstance(pattern, list):
        if len(pattern) != layers or not all(isinstance(slides, bool) for slides in pattern):
            raise metadata.wrong(key, f"it has to be a number, or true or false for each of {layers} layers")
    else:
        every = metadata.integer(key)
        pattern = [every == 0 or (layer + 1) % every != 0 for layer in range(layers)]
    return [SLIDING if slides else FULL for slides in pattern]


def _head_dim(metadata: Metadata, family: Family, tensors: Tensors, heads: int, hidden: int) -> int:
    """Dimensions of a head, which have to fit the first layer's tensors."""
    dims = metadata.integer(f"{family.gguf}.attention.key_length", hidden // heads if heads else 0)
    output = tensors.get("blk.0.attn_output.weight")
    if output is not None and heads * dims != output.shape[-1]:
        raise ModelError(
            f"{metadata.source}: {family.gguf}.attention.head_count = {heads}, of {dims} dimensions each, "
            f"does not fit tensor {output.name!r} of shape {output.shape}"
        )
    value = metadata.integer(f"{family.gguf}.attention.value_length", dims)
    if value != dims:
        raise ModelError(
            f"{metadata.source}: attention.value_length = {value} of head_dim = {dims}; only equal numbers "
            "are supported"
        )
    return dims


def _matrix(tensors: Tensors, name: str, source: str) -> StoredTensor:
    found = tensors.get(name)
    if found is None:
        raise ModelError(f"{source}: tensor {name!r} is missing")
    if len(found.shape) != 2:
        raise ModelError(f"{source}: tensor {name!r} has shape {found.shape}; it has to be a matrix")
    return found
