"""A checkpoint in one GGUF file, as llama.cpp writes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, PreTrainedTokenizerBase

from outrider.errors import ModelError
from outrider.models.config import DecoderConfig, decoder_config
from outrider.models.folder import PROBE
from outrider.models.gguf_blocks import CHANGED, FORMATS, TYPES, dequantized, weight_of
from outrider.models.gguf_header import StoredTensor, read_header
from outrider.models.gguf_tokenizer import build_tokenizer
from outrider.models.tokenizer import load_tokenizer
from outrider.quantization.weight import Format, Weight

logger = logging.getLogger(__name__)

SAMPLING = "general.sampling."
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


class GGUFCheckpoint:
    """Weights are decoded when asked for; the file stays memory-mapped."""

    def __init__(self, path: Path, tokenizer_path: Path | None = None) -> None:
        self._path = path
        self._tokenizer_path = tokenizer_path
        self._told: set[str] = set()
        with _reading(path):
            header = read_header(path)
            self._metadata, self._tensors = header.metadata, header.tensors
            self.config = self._config()
            self.sampling_defaults = {
                key.removeprefix(SAMPLING): value
                for key, value in self._metadata.items()
                if key.startswith(SAMPLING)
            }
        self._shapes = self.config.shapes()

    def tensor(self, name: str) -> Tensor:
        stored = self._stored(name)
        return _ordered(dequantized(stored).reshape(self._shapes[name]), self._order(name))

    def weight(self, name: str) -> Weight:
        stored = self._stored(name)
        self._tell(stored.type.name)
        weight = weight_of(stored)
        order = self._order(name)
        return weight if order is None else weight.rows(order)

    @property
    def stored_as(self) -> str:
        return str(self._stored(PROBE).type.name)

    def format(self, name: str) -> Format:
        return FORMATS[self._stored(name).type.name]

    def _tell(self, kind: str) -> None:
        """Say once what becomes of a type that is not taken as it is."""
        if kind in CHANGED and kind not in self._told:
            self._told.add(kind)
            logger.warning("%s: tensors of type %s become %s", self._path, kind, CHANGED[kind])

    def _stored(self, name: str) -> StoredTensor:
        """The tensor in the file. Raises ModelError if it is missing, misshapen or of an unknown type."""
        stored = self._tensors.get(gguf_name(name))
        if stored is None:
            raise ModelError(f"{self._path}: tensor {gguf_name(name)!r} ({name!r}) is missing")
        expected = self._shapes[name]
        if stored.shape != expected:
            raise ModelError(
                f"{self._path}: tensor {stored.name!r} has shape {stored.shape}; the metadata implies "
                f"{expected}"
            )
        if stored.type.name not in TYPES:
            raise ModelError(
                f"{self._path}: tensor {stored.name!r} is of type {stored.type.name}; supported are "
                f"{', '.join(TYPES)}"
            )
        return stored

    def _order(self, name: str) -> Tensor | None:
        """The order of Q's and K's rows, which llama.cpp changes."""
        heads = {"q_proj": self.config.num_heads, "k_proj": self.config.num_kv_heads}
        for part, count in heads.items():
            if f".{part}." in name:
                return _half_split(self._shapes[name][0], count)
        return None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        if self._tokenizer_path is not None:
            return load_tokenizer(self._tokenizer_path)
        with _reading(self._path):
            return build_tokenizer(self._metadata, str(self._path))

    def _config(self) -> DecoderConfig:
        architecture = self._metadata.get("general.architecture")
        if architecture != "llama":
            raise ModelError(
                f"{self._path}: architecture {architecture!r} is not supported; supported in GGUF is 'llama'"
            )
        heads = int(self._value("attention.head_count"))
        hidden = int(self._value("embedding_length"))
        head_dim = int(self._value("attention.key_length", hidden // heads))
        theta = float(self._value("rope.freq_base", 10000.0))
        rotary = int(self._value("rope.dimension_count", head_dim))
        if rotary != head_dim:
            raise ModelError(
                f"{self._path}: rope.dimension_count = {rotary} of head_dim = {head_dim}; only rotation of "
                "all dimensions is supported"
            )
        eos = [self._metadata.get(f"tokenizer.ggml.{kind}_token_id") for kind in ("eos", "eot")]
        embedding = self._tensors.get("token_embd.weight")
        if embedding is None:
            raise ModelError(f"{self._path}: tensor 'token_embd.weight' is missing")
        config = LlamaConfig(
            vocab_size=embedding.shape[0],
            hidden_size=hidden,
            intermediate_size=int(self._value("feed_forward_length")),
            num_hidden_layers=int(self._value("block_count")),
            num_attention_heads=heads,
            num_key_value_heads=int(self._value("attention.head_count_kv", heads)),
            head_dim=head_dim,
            rms_norm_eps=float(self._value("attention.layer_norm_rms_epsilon")),
            max_position_embeddings=int(self._value("context_length")),
            rope_parameters=self._rope_parameters(theta),
            tie_word_embeddings="output.weight" not in self._tensors,
            attention_bias="blk.0.attn_q.bias" in self._tensors,
            mlp_bias="blk.0.ffn_up.bias" in self._tensors,
            eos_token_id=[int(i) for i in eos if i is not None],
        )
        return self._with_rope_factors(decoder_config(config, str(self._path)))

    def _value(self, key: str, default: Any = None) -> Any:
        value = self._metadata.get(f"llama.{key}", default)
        if value is None:
            raise ModelError(f"{self._path}: metadata 'llama.{key}' is missing")
        return value

    def _rope_parameters(self, theta: float) -> dict[str, Any]:
        kind = self._metadata.get("llama.rope.scaling.type", "none")
        if kind == "none":
            return {"rope_type": "default", "rope_theta": theta}
        parameters = {
            "rope_type": kind,
            "rope_theta": theta,
            "factor": float(self._value("rope.scaling.factor")),
        }
        if kind == "yarn":
            length = self._value("rope.scaling.original_context_length")
            parameters["original_max_position_embeddings"] = int(length)
        return parameters

    def _with_rope_factors(self, config: DecoderConfig) -> DecoderConfig:
        """Llama 3's scaling comes as one divisor a frequency, in a tensor of its own."""
        stored = self._tensors.get("rope_freqs.weight")
        if stored is None:
            return config
        divisors = dequantized(stored).tolist()
        if len(divisors) != len(config.rope_inv_freq):
            raise ModelError(
                f"{self._path}: tensor 'rope_freqs.weight' has {len(divisors)} values; head_dim implies "
                f"{len(config.rope_inv_freq)}"
            )
        scaled = tuple(f / d for f, d in zip(config.rope_inv_freq, divisors, strict=True))
        return replace(config, rope_inv_freq=scaled)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """The reader and the tokenizer library have no errors of their own: any of Python's may come up."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path} is truncated or corrupt: {reason}") from error


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor, from Hugging Face's."""
    stem, kind = name.rsplit(".", 1)
    if stem in GLOBAL_NAMES:
        return f"{GLOBAL_NAMES[stem]}.{kind}"
    _, _, layer, part = stem.split(".", 3)
    return f"blk.{layer}.{LAYER_NAMES[part]}.{kind}"


def _half_split(rows: int, heads: int) -> Tensor:
    """Undo llama.cpp's order of Q and K rows: it pairs neighbouring rows for the rotation, Hugging Face
    (and this package) row i with row i + head_dim / 2."""
    return torch.arange(rows).reshape(heads, -1, 2).transpose(1, 2).flatten()


def _ordered(tensor: Tensor, order: Tensor | None) -> Tensor:
    return tensor if order is None else tensor[order]
