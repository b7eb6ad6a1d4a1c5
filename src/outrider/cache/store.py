"""Where one layer keeps K and V. The layout is the backend's; see `Backend.new_cache`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class StateCache:
    """values: float32 [slots, ...], the states of one layer."""

    values: Tensor


@dataclass(frozen=True)
class LayerCache:
    """keys, values: of one layer, for all cache blocks. group: which of a span's tables it has."""

    keys: Tensor
    values: Tensor
    group: int = 0
