"""Gemma 3 (Gemma Team, 2025): Gemma 2 with norms of q and k in place of caps, and a rope of its own for
windows."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes
from outrider.models.families.family import Family
from outrider.models.families.gemma2 import gemma, score_scale
from outrider.models.parts import Attention, Decoder
from outrider.models.settings import Settings


def gemma3(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    every = c.size_of("sliding_window_pattern", "_sliding_window_pattern", default=6)
    windows = c.windows(sizes.layers, lambda layer: (layer + 1) % every != 0)
    local = c.rope(sizes.head_dim, of="sliding_attention", theta_key="rope_local_base_freq")
    wide = c.rope(sizes.head_dim, of="full_attention", theta=1e6)
    scale = score_scale(c, sizes, 62)

    def attention(layer: Layer) -> Attention:
        window = windows[layer.number]
        rope = wide if window is None else local
        return layer.attention(rope, window=window, scale=scale, norms="head")

    return gemma(c, sizes, attention)


SIZES = {
    "vocab_size": 262208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
    "max_position_embeddings": 131072,
}
"""What the files of its vision models leave out."""
IN_GGUF = {
    "attention.sliding_window": "sliding_window",
    "rope.freq_base_swa": "rope_local_base_freq",
    "final_logit_softcapping": "final_logit_softcapping",
}
FAMILIES = (Family("Gemma 3", "Gemma3ForCausalLM", "gemma3_text", gemma3, SIZES, "gemma3", IN_GGUF),)
