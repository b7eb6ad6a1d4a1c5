"""What a GGUF file's metadata and tensors say of the model.

Every size is held against the tensors that are there, and every tensor is one of the model's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from transformers import LlamaConfig

from outrider.errors import ModelError
from outrider.messages import listed
from outrider.models.config import DecoderConfig, decoder_config
from outrider.models.gguf_blocks import TYPES, dequantized
from outrider.models.gguf_header import GGUFHeader, StoredTensor
from outrider.models.gguf_keys import ARCHITECTURE, check_keys, check_whole, key_of
from outrider.models.gguf_metadata import Metadata
from outrider.models.gguf_vocabulary import read_vocabulary

LAYER = re.compile(r"blk\.(\d+)\.")
ROPE_FREQS = "rope_freqs.weight"
GLOBAL_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_config(header: GGUFHeader, source: str) -> DecoderConfig:
    """The model in a file, whose tensors are all there and of the right shapes.

    source: the file's name, for messages. Raises ModelError for a file that is not just a model of the
    architecture that is supported.
    """
    metadata, tensors = Metadata(header.metadata, source), header.tensors
    check_whole(metadata)
    heads = key_of(metadata, "attention.head_count")
    layers = key_of(metadata, "block_count")
    embedding = _tensor(tensors, "token_embd.weight", source)
    query = _tensor(tensors, "blk.0.attn_q.weight", source)
    vocab, hidden = embedding.shape
    gate = _tensor(tensors, "blk.0.ffn_gate.weight", source)
    for name, value, held, what, tensor in (
        ("embedding_length", key_of(metadata, "embedding_length", hidden), hidden, "columns", embedding),
        ("vocab_size", key_of(metadata, "vocab_size", vocab), vocab, "rows", embedding),
        ("feed_forward_length", key_of(metadata, "feed_forward_length"), gate.shape[0], "rows", gate),
    ):
        if value != held:
            raise metadata.wrong(f"{ARCHITECTURE}.{name}", f"tensor {tensor.name!r} has {held} {what}")
    head_dim = key_of(metadata, "attention.key_length", hidden // heads if heads else 0)
    if heads * head_dim != query.shape[0]:
        raise ModelError(
            f"{source}: llama.attention.head_count = {heads}, of {head_dim} dimensions each, does not fit "
            f"tensor {query.name!r} of shape {query.shape}"
        )
    check_keys(metadata, head_dim)
    there = {found[1] for name in tensors if (found := LAYER.match(name))}
    if layers > len(there):
        raise metadata.wrong("llama.block_count", f"the file has tensors of {len(there)} layers")
    vocabulary = read_vocabulary(metadata, vocab)
    if len(vocabulary.tokens) > vocab:
        raise ModelError(
            f"{source}: tokenizer.ggml.tokens has {len(vocabulary.tokens)} tokens; tensor {embedding.name!r} "
            f"has {vocab} rows"
        )
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=gate.shape[0],
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_of(metadata, "attention.head_count_kv", heads),
        head_dim=head_dim,
        rms_norm_eps=metadata.positive("llama.attention.layer_norm_rms_epsilon"),
        max_position_embeddings=key_of(metadata, "context_length"),
        rope_parameters=_rope_parameters(metadata),
        tie_word_embeddings="output.weight" not in tensors,
        attention_bias="blk.0.attn_q.bias" in tensors,
        mlp_bias="blk.0.ffn_up.bias" in tensors,
        eos_token_id=sorted(vocabulary.ends),
    )
    decoder = decoder_config(config, source)
    _check_tensors(tensors, decoder, source)
    return _with_rope_factors(decoder, tensors, source)


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor, from Hugging Face's."""
    stem, kind = name.rsplit(".", 1)
    if stem in GLOBAL_NAMES:
        return f"{GLOBAL_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{kind}"


def _tensor(tensors: Mapping[str, StoredTensor], name: str, source: str) -> StoredTensor:
    """A matrix that the sizes are compared with."""
    found = tensors.get(name)
    if found is None:
        raise ModelError(f"{source}: tensor {name!r} is missing")
    if len(found.shape) != 2:
        raise ModelError(f"{source}: tensor {name!r} has shape {found.shape}; it has to be a matrix")
    return found


def _check_tensors(tensors: Mapping[str, StoredTensor], config: DecoderConfig, source: str) -> None:
    """The file has the tensors of the model, in types that are supported, and no others."""
    shapes = {gguf_name(name): (name, shape) for name, shape in config.shapes().items()}
    unused = sorted(tensors.keys() - shapes.keys() - {ROPE_FREQS})
    if unused:
        raise ModelError(
            f"{source} has tensors that a model of architecture {ARCHITECTURE!r} with {config.num_layers} "
            f"layers has no use for: {listed(unused)}"
        )
    for stored_name, (name, expected) in shapes.items():
        stored = tensors.get(stored_name)
        if stored is None:
            raise ModelError(f"{source}: tensor {stored_name!r} ({name!r}) is missing")
        if stored.shape != expected:
            raise ModelError(
                f"{source}: tensor {stored.name!r} has shape {stored.shape}; the metadata implies {expected}"
            )
        _check_type(stored, source)


def _check_type(stored: StoredTensor, source: str) -> None:
    if stored.type.name not in TYPES:
        raise ModelError(
            f"{source}: tensor {stored.name!r} is of type {stored.type.name}; supported are "
            f"{', '.join(TYPES)}"
        )


def _rope_parameters(metadata: Metadata) -> dict[str, Any]:
    """As llama.cpp reads them: a factor without a type is linear, and has an older name."""
    theta = metadata.positive("llama.rope.freq_base", 10000.0)
    if theta <= 1:
        raise metadata.wrong("llama.rope.freq_base", "it has to be greater than 1")
    key = "llama.rope.scaling.factor"
    if key not in metadata and "llama.rope.scale_linear" in metadata:
        key = "llama.rope.scale_linear"
    kind = metadata.text("llama.rope.scaling.type", "linear" if key in metadata else "none")
    if kind == "none":
        return {"rope_type": "default", "rope_theta": theta}
    if kind not in ("linear", "yarn"):
        raise metadata.wrong("llama.rope.scaling.type", "supported are 'none', 'linear' and 'yarn'")
    parameters = {"rope_type": kind, "rope_theta": theta, "factor": metadata.positive(key)}
    if kind == "yarn":
        length = key_of(metadata, "rope.scaling.original_context_length", key_of(metadata, "context_length"))
        if not length:
            raise metadata.wrong("llama.rope.scaling.original_context_length", "it has to be at least 1")
        parameters["original_max_position_embeddings"] = length
    return parameters


def _with_rope_factors(
    config: DecoderConfig, tensors: Mapping[str, StoredTensor], source: str
) -> DecoderConfig:
    """Llama 3's scaling comes as one divisor a frequency, in a tensor of its own."""
    stored = tensors.get(ROPE_FREQS)
    if stored is None:
        return config
    _check_type(stored, source)
    if stored.shape != (len(config.rope_inv_freq),):
        raise ModelError(
            f"{source}: tensor {ROPE_FREQS!r} has {math.prod(stored.shape)} values; head_dim implies "
            f"{len(config.rope_inv_freq)}"
        )
    divisors = dequantized(stored)
    scaled = torch.tensor(config.rope_inv_freq) / divisors  # float32: a small divisor leaves its range
    if not (divisors.isfinite() & (divisors > 0) & scaled.isfinite()).all():
        raise ModelError(
            f"{source}: tensor {ROPE_FREQS!r} holds numbers that are not finite and greater than 0, or are "
            "too small"
        )
    return replace(config, rope_inv_freq=tuple(scaled.tolist()))
