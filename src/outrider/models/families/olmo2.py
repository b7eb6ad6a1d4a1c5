"""OLMo 2 (Team OLMo, 2024) and 3 (Team OLMo, 2025): norms after the mixers, and of the whole q and k."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings
from outrider.ops.shapes import Rope


def olmo2(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    rope = c.rope(sizes.head_dim)
    return _decoder(c, sizes, c.windows(sizes.layers), rope, rope)


def olmo3(c: Settings) -> Decoder:
    """All but every fourth layer have a window, and a rope that is not scaled."""
    sizes = Sizes.of(c)
    windows = c.windows(sizes.layers, lambda layer: (layer + 1) % 4 != 0)
    theta_key = "rope_local_base_freq" if c.has("rope_local_base_freq") else "rope_theta"
    local = c.rope(sizes.head_dim, of="sliding_attention", theta=5e5, theta_key=theta_key)
    return _decoder(c, sizes, windows, local, c.rope(sizes.head_dim, of="full_attention", theta=5e5))


def _decoder(c: Settings, sizes: Sizes, windows: list[int | None], local: Rope, wide: Rope) -> Decoder:
    activation, bias = c.activation(), c.flag("attention_bias", False)

    def block(layer: Layer) -> Block:
        window = windows[layer.number]
        rope = wide if window is None else local
        attention = layer.attention(rope, window=window, norms="all", qkv_bias=bias, out_bias=bias)
        return Block(
            Residual(attention, after=layer.norm("post_attention_layernorm", "post_attention_norm")),
            Residual(
                layer.gated(activation), after=layer.norm("post_feedforward_layernorm", "post_ffw_norm")
            ),
        )

    return decoder(c, sizes, block, tied=False)


EPS = {"rms_norm_eps": 1e-5}
WINDOW = {"sliding_window": 4096}
IN_GGUF = {"attention.sliding_window": "sliding_window", "rope.freq_base_swa": "rope_local_base_freq"}
FAMILIES = (
    Family("OLMo 3", "Olmo3ForCausalLM", "olmo3", olmo3, EPS | WINDOW, "olmo2", IN_GGUF),
    Family("OLMo 2", "Olmo2ForCausalLM", "olmo2", olmo2, EPS, "olmo2"),
)
