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


FeedForward = Callable[[Layer], Gated | Experts]
FeedForwards = Callable[[Settings, Sizes], FeedForward]


def hybrid(
    c: Settings, inputs: Callable[[Layer, DeltaShape], DeltaInputs], feed_forwards: FeedForwards
) -> Decoder:
    sizes = Sizes.of(c)
    shape, kernel = delta_shape(c), c.size("linear_conv_kernel_dim", 4)
    every = c.size("full_attention_interval", 4)
    kinds = c.layer_types(sizes.layers, (FULL, LINEAR), lambda layer: LINEAR if (layer + 1) % every else FULL)
    attend, feed_forward = attention(c, sizes), feed_forwards(c, sizes)

    def block(layer: Layer) -> Block:
        if kinds[layer.number] == LINEAR:
            return block_of(layer, delta_net(layer, shape, kernel, inputs(layer, shape)), feed_forward)
        return block_of(layer, attend(layer), feed_forward)

    return decoder(c, sizes, block, tied=False, less_one=True)


def attention(c: Settings, sizes: Sizes) -> Callable[[Layer], Attention]:
    rope = c.rope(sizes.head_dim, partial=0.25, others=OF_PICTURES)
    bias = c.flag("attention_bias", False)
    return lambda layer: layer.attention(rope, norms="head", qkv_bias=bias, out_bias=bias, gated=True)


def block_of(layer: Layer, mixer: Attention | DeltaNet, feed_forward: FeedForward) -> Block:
    return Block(
        Residual(mixer, before=layer.norm("input_layernorm", "attn_norm")),
        Residual(feed_forward(layer), before=layer.norm("post_attention_layernorm", "post_attention_norm")),
    )


IN_GGUF = {
    "full_attention_interval": "full_attention_interval",
    "ssm.conv_kernel": "linear_conv_kernel_dim",
    "ssm.group_count": "linear_num_key_heads",
    "ssm.state_size": "linear_key_head_dim",
    "ssm.time_step_rank": "linear_num_value_heads",
}
DEFAULTS = {"head_dim": 256, "linear_value_head_dim": 128, "num_key_value_heads": 2}
