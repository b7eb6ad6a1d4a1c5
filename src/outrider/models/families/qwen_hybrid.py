"""What Qwen3-Next and Qwen3.5 have in common: gated attention in some layers, and DeltaNets in the others."""

from __future__ import annotations

from collections.abc import Callable

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.delta_net import DeltaInputs, delta_net, delta_shape
from outrider.models.parts import Attention, Block, Decoder, Experts, Gated, Residual
from outrider.models.recurrent_parts import DeltaNet
from outrider.models.settings import FULL, Settings
from outrider.ops.shapes import DeltaShape

LINEAR = "linear_attention"
OF_PICTURES = ("mrope_interleaved", "mrope_section")  # a text's positions are the same on all their axes


def hybrid(
    c: Settings,
    sizes: Sizes,
    inputs: Callable[[Layer, DeltaShape], DeltaInputs],
    feed_forward: Callable[[Layer], Gated | Experts],
) -> Decoder:
    shape, kernel = delta_shape(c), c.size("linear_conv_kernel_dim", 4)
    every = c.size("full_attention_interval", 4)
    kinds = c.layer_types(sizes.layers, (FULL, LINEAR), lambda layer: LINEAR if (layer + 1) % every else FULL)
    rope = c.rope(sizes.head_dim, partial=0.25, others=OF_PICTURES)
    bias = c.flag("attention_bias", False)

    def mixer(layer: Layer) -> Attention | DeltaNet:
        if kinds[layer.number] == LINEAR:
            return delta_net(layer, shape, kernel, inputs(layer, shape))
        return layer.attention(rope, norms="head", qkv_bias=bias, out_bias=bias, gated=True)

    def block(layer: Layer) -> Block:
        return Block(
            Residual(mixer(layer), before=layer.norm("input_layernorm", "attn_norm")),
            Residual(
                feed_forward(layer), before=layer.norm("post_attention_layernorm", "post_attention_norm")
            ),
        )

    return decoder(c, sizes, block, tied=False, less_one=True)


IN_GGUF = {
    "full_attention_interval": "full_attention_interval",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.time_step_rank": "linear_num_value_heads",
}
DEFAULTS = {"head_dim": 256, "linear_value_head_dim": 128, "num_key_value_heads": 2}
