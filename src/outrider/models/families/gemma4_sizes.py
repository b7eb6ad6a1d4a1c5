"""The sizes of Gemma 4's two kinds of layers: with a window, and those that see all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from outrider.models.families.build import Sizes
from outrider.models.settings import Settings

WIDE_HEAD = 512  # dimensions of heads in layers that see all, where the settings do not say it
OF_EACH = {"head_dim", "num_key_value_heads"}


def wide_sizes(c: Settings, sizes: Sizes, windows: Sequence[int | None], keys_are_values: bool) -> Sizes:
    """The sizes of layers that see all. transformers writes them for each such layer by its number."""
    kv_heads = c.optional_size("num_global_key_value_heads")
    found = replace(
        sizes,
        head_dim=c.optional_size("global_head_dim") or WIDE_HEAD,
        kv_heads=kv_heads if kv_heads and keys_are_values else sizes.kv_heads,
    )
    if each := c.get("per_layer_config"):
        own = _of_each(c, each, [layer for layer, window in enumerate(windows) if window is None])
        head_dim = own.size("head_dim", sizes.head_dim)
        found = replace(found, head_dim=head_dim, kv_heads=own.size("num_key_value_heads", sizes.kv_heads))
    if found.heads % found.kv_heads or found.head_dim % 2:
        right = "even, and num_attention_heads a multiple of num_global_key_value_heads"
        raise c.error("global_head_dim", right)
    return found


def own_layers(c: Settings, windows: Sequence[int | None], shared: int) -> int:
    """How many layers, from the first on, have K and V of their own: of each kind that others read one at
    least, or none at all. shared: how many have none, where the settings do not say it."""
    key = "num_kv_shared_layers"
    count = c.size(key) if c.get(key) else shared
    own = len(windows) - count
    before, behind = ({window is None for window in layers} for layers in (windows[:own], windows[own:]))
    if own < 0 or (own and behind - before):
        raise c.error(key, f"so few of {len(windows)} layers that some of each type are left before them")
    return own


def _of_each(c: Settings, each: Any, layers: list[int]) -> Settings:
    """What these layers, and no others, have of their own, which has to be the same."""
    own = list(each.values()) if isinstance(each, Mapping) else []
    numbers = {int(key) for key in each if key.isdecimal()} if own else set()
    alike = all(isinstance(one, Mapping) and one == own[0] for one in own)
    if numbers != {*layers} or not alike or not own[0].keys() <= OF_EACH:
        right = "the same head_dim and num_key_value_heads for each layer that sees all, and for no other"
        raise c.error("per_layer_config", right)
    return Settings(own[0], f"{c.source}: per_layer_config")
