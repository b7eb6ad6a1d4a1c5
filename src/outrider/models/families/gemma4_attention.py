"""Gemma 4's attention: of two kinds, with normed values, and K and V that layers may share."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.models.families.build import Layer, Sizes
from outrider.models.families.gemma4_sizes import own_layers, wide_sizes
from outrider.models.parts import Attention
from outrider.models.settings import FULL, SLIDING, Settings
from outrider.ops.shapes import KeyValues, Rope

EVERY = 6  # the layers that see all, where `layer_types` does not say it


@dataclass(frozen=True)
class Attentions:
    """wide: the sizes of layers that see all; local, full: the ropes of the two kinds. keys_are_values: in
    layers that see all. own: how many layers, from the first on, have K and V of their own."""

    wide: Sizes
    windows: tuple[int | None, ...]
    local: Rope
    full: Rope
    bias: bool
    keys_are_values: bool
    own: int

    @classmethod
    def of(cls, c: Settings, sizes: Sizes, shared: int) -> Attentions:
        """shared: see `own_layers`."""
        last, k_eq_v = sizes.layers - 1, c.flag("attention_k_eq_v", False)
        windows = c.windows(sizes.layers, lambda layer: (layer + 1) % EVERY != 0 and layer != last)
        if windows[-1] is not None:
            raise c.error("layer_types", f"a list whose last type is {FULL!r}")
        wide, own = wide_sizes(c, sizes, windows, k_eq_v), own_layers(c, windows, shared)
        local = c.rope(sizes.head_dim, of=SLIDING, theta_key="rope_local_base_freq")
        full = c.rope(wide.head_dim, of=FULL, theta=1e6)
        return cls(wide, tuple(windows), local, full, c.flag("attention_bias", False), k_eq_v, own)

    def source(self, number: int) -> int | None:
        """The layer whose K and V this one reads: the last of its kind that has some; None: its own."""
        if number < self.own or not self.own:
            return None
        kind = self.windows[number] is None
        return max(layer for layer in range(self.own) if (self.windows[layer] is None) == kind)

    def part(self, layer: Layer) -> Attention:
        window, shared = self.windows[layer.number], layer.number >= self.own
        kv: KeyValues = "keys" if window is None and self.keys_are_values else "own"
        return Layer(layer.number, layer.sizes if window else self.wide).attention(
            self.local if window else self.full,
            window=window,
            scale=1.0,
            norms="head",
            qkv_bias=self.bias,
            out_bias=self.bias,
            kv="shared" if shared else kv,
            values_normed=not shared,
        )
