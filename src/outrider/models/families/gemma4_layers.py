"""The layers of Gemma 4's models and of their assistants."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.models.families.build import Layer, Sizes
from outrider.models.families.gemma4_attention import Attentions
from outrider.models.families.gemma4_tokens import per_layer_embedding, per_layer_input
from outrider.models.leaves import Vector
from outrider.models.parts import Block, Residual
from outrider.models.per_layer import PerLayerEmbedding
from outrider.models.settings import Settings
from outrider.ops.shapes import Activation


@dataclass(frozen=True)
class Layers:
    """double: whether layers without K and V of their own have a feed-forward twice as wide. per_layer: None
    where there are no such embeddings."""

    sizes: Sizes
    attentions: Attentions
    activation: Activation
    double: bool
    per_layer: PerLayerEmbedding | None

    @classmethod
    def of(cls, c: Settings, *, shared: int = 0) -> Layers:
        """shared: last layers without K and V of their own, where the settings do not say it. Raises
        ModelError for a model with experts, and for settings that exclude each other."""
        c.always("enable_moe_block", False)
        if c.get("use_bidirectional_attention") not in (None, False, "vision"):
            raise c.error("use_bidirectional_attention", "null or 'vision', since text is read causally")
        sizes = Sizes.of(c)
        activation = c.activation("hidden_activation", default="gelu_pytorch_tanh")
        double = c.flag("use_double_wide_mlp", False)
        attentions = Attentions.of(c, sizes, shared)
        return cls(sizes, attentions, activation, double, per_layer_embedding(c, sizes))

    def block(self, layer: Layer) -> Block:
        wide = self.double and layer.number >= self.attentions.own
        return Block(
            Residual(
                self.attentions.part(layer),
                before=layer.norm("input_layernorm", "attn_norm"),
                after=layer.norm("post_attention_layernorm", "post_attention_norm"),
            ),
            Residual(
                layer.gated(self.activation, inner=self.sizes.inner * (2 if wide else 1)),
                before=layer.norm("pre_feedforward_layernorm", "ffn_norm"),
                after=layer.norm("post_feedforward_layernorm", "post_ffw_norm"),
            ),
            reads=self.attentions.source(layer.number),
            per_layer=per_layer_input(self.per_layer, layer),
            scale=Vector(layer.scope.tensor("layer_scalar", "layer_output_scale.weight", (1,))),
        )
