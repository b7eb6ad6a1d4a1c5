"""gpt-oss (OpenAI, 2025): mixtures of clamped experts, biases everywhere, and attention with sinks, of which
every other layer has a window."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.mixture import LIKE_MIXTRAL, Places, Three, each, experts, routing, stacked
from outrider.models.parts import Block, Decoder, Experts, Residual
from outrider.models.settings import Settings


def gpt_oss(c: Settings) -> Decoder:
    sizes, chosen = Sizes.of(c), routing(c)
    count, hidden, inner = chosen.count, sizes.hidden, sizes.inner
    rope, bias = c.rope(sizes.head_dim, theta=150000.0), c.flag("attention_bias", True)
    windows = c.windows(sizes.layers, lambda layer: layer % 2 == 0)
    c.activation()
    in_mxfp4 = bool(c.get("quantization_config"))

    def weights(name: str, outputs: int, inputs: int, first: int = 0, step: int = 1) -> Places:
        """As rows where they are in MXFP4, else as matrices [in, out]."""
        if in_mxfp4:
            return each(f"mlp.experts.{{}}.{name}.weight", outputs, inputs, first=first, step=step)
        return stacked(f"mlp.experts.{name}", count, inputs, outputs, first=first, step=step, turned=True)

    def mixture(layer: Layer) -> Experts:
        """Rows of gate and up take turns."""
        gate, up = (weights("gate_up_proj", 2 * inner, hidden, first, 2) for first in (0, 1))
        down, name = weights("down_proj", hidden, inner), "mlp.experts.gate_up_proj_bias"
        of_gate, of_up = (stacked(name, count, 2 * inner, first=first, step=2) for first in (0, 1))
        biases = Three(of_gate, of_up, stacked("mlp.experts.down_proj_bias", count, hidden))
        return experts(layer, chosen, inner, "swiglu_clamped", "mlp.router", Three(gate, up, down), biases)

    def block(layer: Layer) -> Block:
        window = windows[layer.number]
        attention = layer.attention(rope, window=window, qkv_bias=bias, out_bias=bias, sinks=True)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(mixture(layer), before=layer.norm("post_attention_layernorm", "post_attention_norm")),
        )

    return decoder(c, sizes, block, tied=False)


DEFAULTS = {"head_dim": 64, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "sliding_window": 128}
IN_GGUF = LIKE_MIXTRAL | {
    "attention.sliding_window": "sliding_window",
    "expert_feed_forward_length": "intermediate_size",
}
FAMILIES = (
    Family(
        *("gpt-oss", "GptOssForCausalLM", "gpt_oss", gpt_oss, DEFAULTS, "gpt-oss", IN_GGUF),
        gguf_rope={"truncate": False},
    ),
)
