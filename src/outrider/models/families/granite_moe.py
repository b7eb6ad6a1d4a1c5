"""Granite 3 MoE (Granite Team, 2024): Granite whose feed-forwards are mixtures."""

from __future__ import annotations

from outrider.models.families import granite
from outrider.models.families.build import Layer, Sizes
from outrider.models.families.family import Family
from outrider.models.families.mixture import LIKE_MIXTRAL, Three, experts, routing, stacked
from outrider.models.parts import Decoder, Experts
from outrider.models.settings import Settings


def granite_moe(c: Settings) -> Decoder:
    sizes, chosen, activation = Sizes.of(c), routing(c), c.activation()
    name, shape = "block_sparse_moe.input_linear.weight", (chosen.count, 2 * sizes.inner, sizes.hidden)
    weights = Three(
        stacked(name, *shape),
        stacked(name, *shape, first=sizes.inner),
        stacked("block_sparse_moe.output_linear.weight", chosen.count, sizes.hidden, sizes.inner),
    )

    def mixture(layer: Layer) -> Experts:
        return experts(layer, chosen, sizes.inner, activation, "block_sparse_moe.router.layer", weights)

    return granite.decoder_with(c, sizes, mixture)


DEFAULTS = granite.UNSCALED | {"num_local_experts": 8, "num_experts_per_tok": 2}
IN_GGUF = granite.IN_GGUF | LIKE_MIXTRAL
FAMILIES = (
    Family(
        "Granite 3 MoE", "GraniteMoeForCausalLM", "granitemoe", granite_moe, DEFAULTS, "granitemoe", IN_GGUF
    ),
)
