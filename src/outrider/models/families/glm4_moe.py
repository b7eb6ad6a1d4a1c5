"""GLM-4.5 to 4.7 (GLM Team, 2025): half of a head turns, and behind the first layers there are mixtures,
whose experts have sigmoids for weights, a bias where they are chosen, and one beside them for all rows."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.glm4_mixture import IN_GGUF, feed_forwards
from outrider.models.mtp_parts import MtpParts, deepseeks, mtp_parts
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.settings import Settings


def glm4_moe(c: Settings) -> Decoder:
    sizes = Sizes.of(c)
    return decoder(c, sizes, _blocks(c, sizes), tied=False)


def mtp(c: Settings) -> MtpParts | None:
    sizes = Sizes.of(c)
    if not c.get("num_nextn_predict_layers"):
        return None
    c.size("num_nextn_predict_layers")  # of which the first is read
    return mtp_parts(sizes, deepseeks(sizes.layers), _blocks(c, sizes))


def _blocks(c: Settings, sizes: Sizes) -> Callable[[Layer], Block]:
    rope, bias = c.rope(sizes.head_dim, partial=0.5), c.flag("attention_bias", False)
    norms, feed_forward = c.flag("use_qk_norm", False), feed_forwards(c, sizes)

    def block(layer: Layer) -> Block:
        attention = layer.attention(rope, qkv_bias=bias, norms="head" if norms else None)
        return Block(
            Residual(attention, before=layer.norm("input_layernorm", "attn_norm")),
            Residual(
                feed_forward(layer), before=layer.norm("post_attention_layernorm", "post_attention_norm")
            ),
        )

    return block


DEFAULTS = {
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
}
FAMILIES = (
    Family(
        *("GLM-4.5, 4.6, 4.7", "Glm4MoeForCausalLM", "glm4_moe", glm4_moe, DEFAULTS, "glm4moe", IN_GGUF),
        gguf_flags={"use_qk_norm": "blk.0.attn_q_norm.weight"},
        mtp=mtp,
    ),
)
