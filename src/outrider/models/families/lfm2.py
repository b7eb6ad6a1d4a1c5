"""LFM2 (Liquid AI, 2025): short convolutions, gated before and after, and attention in some layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.families.lfm2_layers import CONV, mixers
from outrider.models.leaves import Vector
from outrider.models.parts import Block, Decoder, Experts, Gated, Norm, Residual
from outrider.models.settings import Settings
from outrider.models.tensors import Scope


def lfm2(c: Settings) -> Decoder:
    activation = c.activation()
    sizes = replace(Sizes.of(c), inner=_inner(c))
    return decoder_with(c, sizes, lambda layer: layer.gated(activation, hf=MATRICES))


def decoder_with(c: Settings, sizes: Sizes, feed_forward: Callable[[Layer], Gated | Experts]) -> Decoder:
    mixer = mixers(c, sizes)

    def block(layer: Layer) -> Block:
        return Block(
            Residual(mixer(layer), before=layer.norm("operator_norm", "attn_norm")),
            Residual(feed_forward(layer), before=layer.norm("ffn_norm", "ffn_norm")),
        )

    names = "model.embedding_norm.weight", "token_embd_norm.weight"
    norm = Norm(Vector(Scope("", "").tensor(*names, (sizes.hidden,))), sizes.eps)
    return replace(decoder(c, sizes, block, tied=c.flag("tie_embedding", True)), norm=norm)


def _inner(c: Settings) -> int:
    """Two thirds of what the settings say, times a factor, up to the next multiple, where they say so."""
    inner, multiple = c.size("block_ff_dim", c.size("intermediate_size")), c.size("block_multiple_of", 256)
    factor = c.number("block_ffn_dim_multiplier", 1.0)
    return -(-int(factor * (2 * inner // 3)) // multiple) * multiple if c.flag(ADJUSTED, True) else inner


ADJUSTED, MATRICES = "block_auto_adjust_ff_dim", ("feed_forward.w1", "feed_forward.w3", "feed_forward.w2")
IN_GGUF = {"shortconv.l_cache": "conv_L_cache"}
DEFAULTS = {"max_position_embeddings": 128000, "norm_eps": 1e-5, "num_key_value_heads": 8}
OF_DENSE = DEFAULTS | {"intermediate_size": 12288}
FAMILIES = (
    Family(
        *("LFM2", "Lfm2ForCausalLM", "lfm2", lfm2, OF_DENSE, "lfm2", IN_GGUF, {ADJUSTED: False}),
        gguf_states=CONV,
    ),
)
