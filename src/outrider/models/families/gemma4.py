"""Gemma 4 (Google, 2026): Gemma 3 with wider heads in the layers that see all, normed values, and, in small
models, per-layer embeddings and last layers that read the K and V of earlier ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from outrider.models.families.build import Layer, Sizes, decoder
from outrider.models.families.family import Family
from outrider.models.leaves import Linear, Table, Vector
from outrider.models.parts import Block, Decoder, Residual
from outrider.models.per_layer import PerLayerEmbedding, PerLayerInput
from outrider.models.settings import FULL, SLIDING, Settings
from outrider.models.tensors import Place, Tensor
from outrider.ops.shapes import Activation, Rope

EVERY = 6  # the layers that see all, where `layer_types` does not say it
WIDE_HEAD = 512  # dimensions of their heads, where the settings do not say it


def gemma4(c: Settings) -> Decoder:
    layers = Layers.of(c)
    if not layers.own:
        raise c.error(
            "num_kv_shared_layers", "less than the number of layers; an assistant is no model by itself"
        )
    sizes, cap = layers.sizes, c.optional_number("final_logit_softcapping")
    plain = decoder(c, sizes, layers.block, tied=True, scale=sizes.hidden**0.5, logit_cap=cap)
    return replace(plain, per_layer=layers.per_layer)


@dataclass(frozen=True)
class Layers:
    """The layers of a Gemma 4 model, or of an assistant.

    sizes: of layers with a window; wide: of those that see all. windows: of each layer. local, full: the
    ropes of the two kinds. keys_are_values: in layers that see all. own: how many layers, from the first on,
    have K and V of their own. double: whether those behind have a feed-forward twice as wide. per_layer: None
    where there are no such embeddings."""

    sizes: Sizes
    wide: Sizes
    windows: tuple[int | None, ...]
    local: Rope
    full: Rope
    activation: Activation
    bias: bool
    keys_are_values: bool
    own: int
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
        last = sizes.layers - 1
        windows = c.windows(sizes.layers, lambda layer: (layer + 1) % EVERY != 0 and layer != last)
        if windows[-1] is not None:
            raise c.error("layer_types", f"a list whose last type is {FULL!r}")
        keys_are_values = c.flag("attention_k_eq_v", False)
        wide = _wide(c, sizes, windows, keys_are_values)
        return cls(
            sizes=sizes,
            wide=wide,
            windows=tuple(windows),
            local=c.rope(sizes.head_dim, of=SLIDING, theta_key="rope_local_base_freq"),
            full=c.rope(wide.head_dim, of=FULL, theta=1e6),
            activation=c.activation("hidden_activation", default="gelu_pytorch_tanh"),
            bias=c.flag("attention_bias", False),
            keys_are_values=keys_are_values,
            own=_own(c, windows, shared),
            double=c.flag("use_double_wide_mlp", False),
            per_layer=_per_layer(c, sizes),
        )

    def block(self, layer: Layer) -> Block:
        number, window = layer.number, self.windows[layer.number]
        full, shared = window is None, number >= self.own
        layer = Layer(number, self.wide if full else self.sizes)
        attention = layer.attention(
            self.full if full else self.local,
            window=window,
            scale=1.0,
            norms="head",
            qkv_bias=self.bias,
            out_bias=self.bias,
            kv="shared" if shared else "keys" if full and self.keys_are_values else "own",
            values_normed=not shared,
        )
        inner = self.sizes.inner * (2 if self.double and shared else 1)
        return Block(
            Residual(
                attention,
                before=layer.norm("input_layernorm", "attn_norm"),
                after=layer.norm("post_attention_layernorm", "post_attention_norm"),
            ),
            Residual(
                layer.gated(self.activation, inner=inner),
                before=layer.norm("pre_feedforward_layernorm", "ffn_norm"),
                after=layer.norm("post_feedforward_layernorm", "post_ffw_norm"),
            ),
            reads=self.source(number) if shared and self.own else None,
            per_layer=self._input(layer),
            scale=Vector(layer.scope.tensor("layer_scalar", "layer_output_scale.weight", (1,))),
        )

    def source(self, number: int) -> int:
        """The last layer of the same kind with K and V of its own; there has to be one."""
        kind = self.windows[number] is None
        return max(layer for layer in range(self.own) if (self.windows[layer] is None) == kind)

    def _input(self, layer: Layer) -> PerLayerInput | None:
        if self.per_layer is None:
            return None
        hidden, width = self.sizes.hidden, self.per_layer.table.tensor.shape[1] // self.sizes.layers
        norm = Place("model.per_layer_projection_norm.weight"), Place("per_layer_proj_norm.weight")
        return PerLayerInput(
            first=layer.number * width,
            norm=Vector(Tensor(*norm, (width,))),
            gate=layer.linear("per_layer_input_gate", "inp_gate", width, hidden),
            out=layer.linear("per_layer_projection", "proj", hidden, width),
            after=layer.vector("post_per_layer_input_norm", "post_norm", hidden),
            eps=self.sizes.eps,
        )


def _own(c: Settings, windows: list[int | None], shared: int) -> int:
    """How many layers have K and V of their own: of each kind that others read one at least, or none at
    all."""
    key = "num_kv_shared_layers"
    count = c.size(key) if c.get(key) else shared
    own = len(windows) - count
    before, behind = ({window is None for window in layers} for layers in (windows[:own], windows[own:]))
    if own < 0 or (own and behind - before):
        raise c.error(key, f"so few of {len(windows)} layers that some of each type are left before them")
    return own


def _wide(c: Settings, sizes: Sizes, windows: list[int | None], keys_are_values: bool) -> Sizes:
    """The sizes of the layers that see all. transformers writes them for each such layer by its number."""
    kv_heads = c.optional_size("num_global_key_value_heads")
    found = replace(
        sizes,
        head_dim=c.optional_size("global_head_dim") or WIDE_HEAD,
        kv_heads=kv_heads if kv_heads and keys_are_values else sizes.kv_heads,
    )
    each = c.get("per_layer_config")
    if each:
        own = _of_each(c, each, [layer for layer, window in enumerate(windows) if window is None])
        found = replace(
            found,
            head_dim=own.size("head_dim", sizes.head_dim),
            kv_heads=own.size("num_key_value_heads", sizes.kv_heads),
        )
    if found.heads % found.kv_heads or found.head_dim % 2:
        raise c.error(
            "global_head_dim", "even, and num_attention_heads a multiple of num_global_key_value_heads"
        )
    return found


def _of_each(c: Settings, each: Any, layers: list[int]) -> Settings:
    """What these layers, and no others, have of their own, which has to be the same."""
    own = list(each.values()) if isinstance(each, Mapping) else []
    numbers = {int(key) for key in each if key.isdecimal()} if own else set()
    alike = all(isinstance(one, Mapping) and one == own[0] for one in own)
    if numbers != {*layers} or not alike or not own[0].keys() <= {"head_dim", "num_key_value_heads"}:
        right = "the same head_dim and num_key_value_heads for each layer that sees all, and for no other"
        raise c.error("per_layer_config", right)
    return Settings(own[0], f"{c.source}: per_layer_config")


def _per_layer(c: Settings, sizes: Sizes) -> PerLayerEmbedding | None:
    width = c.get("hidden_size_per_layer_input")
    vocab = c.get("vocab_size_per_layer_input")
    if not width:
        return None
    width = c.size("hidden_size_per_layer_input")
    if vocab not in (None, sizes.vocab):
        raise c.error("vocab_size_per_layer_input", f"vocab_size, which is {sizes.vocab}")
    columns = sizes.layers * width

    def tensor(hf: str, gguf: str, *shape: int) -> Tensor:
        return Tensor(Place(f"model.{hf}.weight"), Place(f"{gguf}.weight"), shape)

    return PerLayerEmbedding(
        table=Table(tensor("embed_tokens_per_layer", "per_layer_token_embd", sizes.vocab, columns)),
        projection=Linear(
            (tensor("per_layer_model_projection", "per_layer_model_proj", columns, sizes.hidden),)
        ),
        scale=width**0.5,
        projection_scale=sizes.hidden**-0.5,
    )


SIZES = {
    "vocab_size": 262144,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 30,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "sliding_window": 512,
    "hidden_size_per_layer_input": 256,
    "max_position_embeddings": 131072,
}
"""What config.json may leave out, as transformers has it."""
IN_GGUF = {
    "attention.shared_kv_layers": "num_kv_shared_layers",
    "attention.sliding_window": "sliding_window",
    "embedding_length_per_layer_input": "hidden_size_per_layer_input",
    "final_logit_softcapping": "final_logit_softcapping",
    "rope.freq_base_swa": "rope_local_base_freq",
}
FAMILIES = (
    Family("Gemma 4", "Gemma4ForCausalLM", "gemma4_text", gemma4, SIZES, "gemma4", IN_GGUF, gguf_kinds=True),
    Family(
        "Gemma 4 12B",
        "Gemma4UnifiedForCausalLM",
        "gemma4_unified_text",
        gemma4,
        SIZES
        | {"hidden_size_per_layer_input": None, "sliding_window": 1024, "max_position_embeddings": 262144},
    ),
)
