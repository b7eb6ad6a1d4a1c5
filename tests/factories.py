"""Tiny random models on disk: real checkpoints that load in milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from outrider.models.tokenizer import Tokenizer as OurTokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
WORDS = ("he", "in", "er", "an", "re", "on", "at", "en", "nd", "ti", "es", "or", "te", "of", "ed")
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tiny_tokenizer(extra: tuple[str, ...] = ()) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 256 bytes, a few merges and ChatML's special tokens; `extra` are added last."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(word[0], word[1]) for word in WORDS] + [("t", "he")]
    tokens = [*SPECIAL, *alphabet, *("".join(pair) for pair in merges)]
    backend = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    backend.add_tokens(list(extra))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def as_loaded(tokenizer: PreTrainedTokenizerFast) -> OurTokenizer:
    """What loading gives of a tokenizer that was saved."""
    template = tokenizer.chat_template
    return OurTokenizer(
        tokenizer.backend_tokenizer, tokenizer.special_tokens_map, {"default": template} if template else {}
    )


def tiny_config(**overrides: Any) -> LlamaConfig:
    """Two layers, grouped queries, and weights large enough that logits are well spread."""
    settings: dict[str, Any] = {
        "vocab_size": len(tiny_tokenizer()),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "eos_token_id": SPECIAL.index("<|im_end|>"),
        "bos_token_id": SPECIAL.index("<|endoftext|>"),
        "architectures": ["LlamaForCausalLM"],
        "tie_word_embeddings": False,
    }
    return LlamaConfig(**settings | overrides)


def write_model(
    path: Path,
    config: Any = None,
    *,
    seed: int = 0,
    tokenizer: PreTrainedTokenizerFast | None = None,
    model_class: Any = LlamaForCausalLM,
    max_shard_size: str = "1GB",
) -> Any:
    """Save a model with random weights and its tokenizer; returns the transformers model, in float32."""
    torch.manual_seed(seed)
    model = model_class(config or tiny_config()).eval()
    model.save_pretrained(path, max_shard_size=max_shard_size)
    (tokenizer or tiny_tokenizer()).save_pretrained(path)
    return model


def write_noisy_copy(path: Path, model: Any, *, noise: float, seed: int = 1) -> None:
    """A model whose weights are those of `model` and some noise: a draft that is right now and then."""
    generator = torch.Generator().manual_seed(seed)
    copy = type(model)(model.config)
    state = {
        name: value
        + noise
        * value.std(correction=min(1, value.numel() - 1))
        * torch.randn(value.shape, generator=generator)
        for name, value in model.state_dict().items()
    }
    copy.load_state_dict(state)
    copy.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
