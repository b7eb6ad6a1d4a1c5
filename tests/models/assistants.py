"""Tiny random assistants of Gemma 4, and what transformers' own drafts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from transformers import Gemma4AssistantConfig, Gemma4AssistantForCausalLM, Gemma4TextConfig

from tests.models.families.table import FAMILIES, LOCAL, WIDE, WINDOW

TARGETS = ("gemma4", "gemma4-small")
"""With K that are V too and all layers of their own, and with layers that share K and V."""


def write_assistant(path: Path, target: Any, *, echo: bool = False, **settings: Any) -> Any:
    """Save an assistant for a model of transformers; returns its own. echo: it drafts from the target's state
    almost as the target does, whose last token it repeats; the other layers add a little."""
    own = target.config.to_dict()
    kept = ("vocab_size", "num_key_value_heads", "head_dim", "attention_k_eq_v", "per_layer_config")
    more = ("sliding_window", "rope_parameters", "num_attention_heads", "max_position_embeddings")
    torch.manual_seed(3)
    hidden = own["hidden_size"]
    text = {
        **{key: own[key] for key in (*kept, *more) if key != "per_layer_config"},
        "model_type": "gemma4_text",
        "global_head_dim": 32,
        "num_global_key_value_heads": 1 if own["attention_k_eq_v"] else None,
        "hidden_size": hidden if echo else 32,
        "hidden_size_per_layer_input": 0,
        "initializer_range": 0.02 if echo else 0.3,
        "intermediate_size": 64,
        "layer_types": [LOCAL, LOCAL, WIDE],
        "num_hidden_layers": 3,
        "num_kv_shared_layers": 3,
        "vocab_size_per_layer_input": 0,
    }
    config = Gemma4AssistantConfig(
        text_config=text,
        backbone_hidden_size=hidden,
        architectures=["Gemma4AssistantForCausalLM"],
        **settings,
    )
    with without_own_layers():
        model = Gemma4AssistantForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1 and not echo:
                nn.init.normal_(parameter, mean=1.0, std=0.3)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar") and not echo:
                nn.init.uniform_(buffer, 0.6, 1.4)
            if name.endswith("token_ordering"):
                buffer.copy_(torch.randperm(len(buffer)))
        if echo:
            model.model.embed_tokens.weight.copy_(target.model.embed_tokens.weight)
            model.pre_projection.weight[:, hidden:].copy_(torch.eye(hidden))
            model.post_projection.weight.copy_(torch.eye(hidden))
    model.save_pretrained(path)
    return model


def read_assistant(path: str) -> Any:
    with without_own_layers():
        return Gemma4AssistantForCausalLM.from_pretrained(path, attn_implementation="eager").eval()


def without_own_layers() -> Any:
    """transformers 5.23 looks for a layer with K and V of its own, and an assistant has none."""
    return patch.object(Gemma4TextConfig, "kv_sharing_modes", ["reuse"] * 3)


@dataclass(frozen=True)
class Drafted:
    """One token of transformers' draft: the logits [vocab] and the state that the next comes from
    [hidden]."""

    logits: Tensor
    state: Tensor


@torch.inference_mode()
def reference_draft(target: Any, assistant: Any, tokens: Sequence[int], length: int) -> list[Drafted]:
    """A greedy draft behind the tokens, of whose last one the target has computed nothing. Its K and V are
    cut as a cache has them: in layers with a window to those that a row at the last token sees."""
    ids = torch.tensor([tokens])
    for kind in (
        LOCAL,
        WIDE,
    ):  # which transformers 5.23 hands out where other layers of the target read them, too
        attentions = (layer.self_attn for layer in target.model.layers)
        *_, last = (a for a in attentions if a.layer_type == kind and not a.is_kv_shared_layer)
        last.store_full_length_kv = True
    found = target.model(ids[:, :-1], use_cache=False, return_shared_kv_states=True)
    shared = {kind: tuple(found.shared_kv_states[kind]) for kind in (LOCAL, WIDE)}
    shared[LOCAL] = tuple(values[:, :, -(WINDOW - 1) :] for values in shared[LOCAL])
    state, token, drafted = found.last_hidden_state[:, -1:], ids[:, -1:], []
    for _ in range(length):
        embedded = target.model.embed_tokens(token)
        passed = assistant(
            inputs_embeds=torch.cat([embedded, state], dim=-1),
            position_ids=torch.tensor([[len(tokens) - 1]]),
            shared_kv_states=shared,
        )
        state, token = passed.last_hidden_state, passed.logits.argmax(dim=-1)
        drafted.append(Drafted(passed.logits[0, 0], state[0, 0]))
    return drafted


def target_config(name: str) -> Any:
    return FAMILIES[name].config()
