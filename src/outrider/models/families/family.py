"""What a family of models is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from outrider.models.mtp_parts import MtpParts
from outrider.models.parts import Decoder
from outrider.models.settings import Settings


def _without_mtp(c: Settings) -> None:
    return None


@dataclass(frozen=True)
class Family:
    """A family, and how its files name it.

    architecture, model_type: of config.json; defaults: settings that config.json may lack. gguf: of a GGUF
    file, None where llama.cpp does not have it; where families share one, the first in the registry is built.
    gguf_settings: keys of a GGUF file below the architecture's name, and what each is called in config.json,
    beside those that all families share; gguf_fixed: settings that llama.cpp takes for granted, and gguf_rope
    those of a rope that is scaled. gguf_mark: a number below the architecture's name that is above 0 in the
    files of this family alone, where others have the same `gguf`. gguf_states: what config.json calls layers
    without K and V, of a family that has such. gguf_flags: settings that are true where a file has a tensor.
    mtp: the layer behind the model's own that predicts further tokens, of a family whose checkpoints may
    bring one; it is None where the settings say that there is none. gguf_kinds: layers with a window have
    sizes of their own.
    """

    name: str
    architecture: str
    model_type: str
    build: Callable[[Settings], Decoder]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    gguf: str | None = None
    gguf_settings: Mapping[str, str] = field(default_factory=dict)
    gguf_fixed: Mapping[str, Any] = field(default_factory=dict)
    gguf_rope: Mapping[str, Any] = field(default_factory=dict)
    gguf_mark: str | None = None
    gguf_states: str | None = None
    gguf_flags: Mapping[str, str] = field(default_factory=dict)
    mtp: Callable[[Settings], MtpParts | None] = _without_mtp
    gguf_kinds: bool = False
