"""Where one layer keeps K and V. Arrays and their layout are the backend's; see `Backend.new_cache`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StateCache:
    """values: float32 [slots, ...], the states of one layer."""

    values: Any


@dataclass(frozen=True)
class LayerCache:
    """keys, values: of one layer, for all cache blocks. group: which of a span's tables it has."""

    keys: Any
    values: Any
    group: int = 0
