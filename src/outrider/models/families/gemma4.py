"""Gemma 4 (Google, 2026): Gemma 3 with wider heads in the layers that see all, normed values, and, in small
models, per-layer embeddings and last layers that read the K and V of earlier ones."""

from __future__ import annotations

from dataclasses import replace

from outrider.models.families.build import decoder
from outrider.models.families.family import Family
from outrider.models.families.gemma4_layers import Layers
from outrider.models.parts import Decoder
from outrider.models.settings import Settings


def gemma4(c: Settings) -> Decoder:
    layers = Layers.of(c)
    if not layers.attentions.own:
        right = "less than the number of layers; an assistant is no model by itself"
        raise c.error("num_kv_shared_layers", right)
    sizes, cap = layers.sizes, c.optional_number("final_logit_softcapping")
    plain = decoder(c, sizes, layers.block, tied=True, scale=sizes.hidden**0.5, logit_cap=cap)
    return replace(plain, per_layer=layers.per_layer)


SIZES = {
    "vocab_size": 262144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 512,
    "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131072,
}
"""What config.json may leave out, as transformers has it."""
OF_12B = {"hidden_size_per_layer_input": None, "sliding_window": 1024, "max_position_embeddings": 262144}
IN_GGUF = {
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "attention.sliding_window": "sliding_window",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base_swa": "rope_local_base_freq",
}
FAMILIES = (
    Family("Gemma 4", "Gemma4ForCausalLM", "gemma4_text", gemma4, SIZES, "gemma4", IN_GGUF, gguf_kinds=True),
    Family(
        "Gemma 4 12B",
        "Gemma4UnifiedForCausalLM",
        "gemma4_unified_text",
        gemma4,
        SIZES | OF_12B,
    ),
)
