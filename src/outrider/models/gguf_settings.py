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
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_rope import Tensors, rope_settings
from outrider.models.gguf_vocabulary import read_vocabulary
from outrider.models.registry import family_of_gguf
from outrider.models.settings import Settings
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
    layers = metadata.integer(f"{architecture}.block_count")
    there = {match[1] for name in tensors if (match := LAYER.match(name))}
    if layers > len(there):
        raise metadata.wrong(f"{architecture}.block_count", f"the file has tensors of {len(there)} layers")
    head_dim = _head_dim(metadata, family, tensors, heads, hidden)
    vocabulary = read_vocabulary(metadata, vocab)
    if len(vocabulary.tokens) > vocab:
        raise ModelError(
            f"{source}: tokenizer.ggml.tokens has {len(vocabulary.tokens)} tokens; tensor {embedding.name!r} "
            f"has {vocab} rows"
        )
    found = {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(f"{architecture}.feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": _kv_heads(metadata, family, layers, heads),
        "head_dim": head_dim,
        "rms_norm_eps": metadata.positive(f"{architecture}.attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": metadata.integer(f"{architecture}.context_length"),
        "layer_types": _layer_types(metadata, family, layers),
        "tie_word_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in tensors,
        "eos_token_id": sorted(vocabulary.ends),
        **rope_settings(metadata, architecture, tensors, head_dim),
    }
    if found["rope_scaling"] is not None:
        found["rope_scaling"] = {**family.gguf_rope, **found["rope_scaling"]}
    own = _own(metadata, family)
    check_keys(metadata, family, head_dim)
    given = {hf: value for hf, value in found.items() if value is not None}
    return family, Settings({**family.gguf_fixed, **given, **own}, source, positions)


def _own(metadata: Metadata, family: Family) -> dict[str, Any]:
    """The family's own settings. In config.json, what is not used is null, and not 0."""
    found = {hf: metadata.get(f"{family.gguf}.{key}") for key, hf in family.gguf_settings.items()}
    return {
        hf: None if value == 0 and not isinstance(value, bool) else value
        for hf, value in found.items()
        if value is not None
    }


def _kv_heads(metadata: Metadata, family: Family, layers: int, heads: int) -> int:
    """Which some files say for each layer."""
    key = f"{family.gguf}.attention.head_count_kv"
    if isinstance(metadata.get(key), list):
        each = metadata.integers(key)
        if len(each) != layers or len({*each}) != 1:
            raise metadata.wrong(key, f"it has to be the same number for all {layers} layers")
        return each[0]
    return metadata.integer(key, heads)


def _layer_types(metadata: Metadata, family: Family, layers: int) -> list[str] | None:
    """Of a model whose layers have windows: which have one, each by itself, or all but every n-th."""
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
    return ["sliding_attention" if slides else "full_attention" for slides in pattern]


def _head_dim(metadata: Metadata, family: Family, tensors: Tensors, heads: int, hidden: int) -> int:
    """Dimensions of a head, which have to fit the first layer's tensors."""
    dims = metadata.integer(f"{family.gguf}.attention.key_length", hidden // heads if heads else 0)
    query = tensors.get("blk.0.attn_q.weight")
    if query is not None and heads * dims != query.shape[0]:
        raise ModelError(
            f"{metadata.source}: {family.gguf}.attention.head_count = {heads}, of {dims} dimensions each, "
            f"does not fit tensor {query.name!r} of shape {query.shape}"
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
