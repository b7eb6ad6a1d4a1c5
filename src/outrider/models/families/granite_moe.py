"""Granite 3 MoE (Granite Team, 2024): Granite whose feed-forwards are mixtures, some with an expert that all
rows go to."""

from __future__ import annotations

from outrider.models.families import granite
from outrider.models.families.build import Layer, Sizes
from outrider.models.families.family import Family
from outrider.models.families.mixture import LIKE_MIXTRAL, Three, experts, routing, stacked
from outrider.models.leaves import Linear
from outrider.models.parts import Decoder, Experts, Gated
from outrider.models.settings import Settings
from outrider.models.tensors import parts


def granite_moe(c: Settings) -> Decoder:
    sizes, chosen, activation = Sizes.of(c), routing(c), c.activation()
    name, shape = "block_sparse_moe.input_linear.weight", (chosen.count, 2 * sizes.inner, sizes.hidden)
    weights = Three(
        stacked(name, *shape),
        stacked(name, *shape, first=sizes.inner),
        stacked("block_sparse_moe.output_linear.weight", chosen.count, sizes.hidden, sizes.inner),
    )
    of_shared = c.size("shared_intermediate_size") if c.get("shared_intermediate_size") else None

    def shared(layer: Layer, inner: int) -> Gated:
        halves = parts("shared_mlp.input_linear.weight", (inner, inner), sizes.hidden)
        gate, up = (
            Linear((layer.scope.tensor(half, f"ffn_{name}_shexp.weight", (inner, sizes.hidden)),))
            for name, half in zip(("gate", "up"), halves, strict=True)
        )
        down = layer.linear("shared_mlp.output_linear", "ffn_down_shexp", sizes.hidden, inner)
        return Gated(gate, up, down, activation)

    def mixture(layer: Layer) -> Experts:
        own = shared(layer, of_shared) if of_shared else None
        router = "block_sparse_moe.router.layer"
        return experts(layer, chosen, sizes.inner, activation, router, weights, shared=own)

    return granite.decoder_with(c, sizes, mixture)


DEFAULTS = granite.UNSCALED | {"num_local_experts": 8, "num_experts_per_tok": 2}
IN_GGUF = granite.IN_GGUF | LIKE_MIXTRAL | {"expert_shared_feed_forward_length": "shared_intermediate_size"}
COMMON = granite_moe, DEFAULTS, "granitemoe", IN_GGUF
FAMILIES = (
    Family("Granite 3 MoE", "GraniteMoeForCausalLM", "granitemoe", *COMMON),
    Family("Granite 3 MoE with a shared expert", "GraniteMoeSharedForCausalLM", "granitemoeshared", *COMMON),
)
