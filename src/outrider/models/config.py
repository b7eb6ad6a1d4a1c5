"""What the engine has to know of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from outrider.models.families.family import Family
from outrider.models.mtp_parts import MtpParts
from outrider.models.parts import Decoder
from outrider.models.settings import Settings, known_or_none, stop_tokens

DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True)
class ModelConfig:
    """tree: what the model is made of. dtype: the type of the weights, as config.json says it. eos_token_ids:
    the tokens that end an output. mtp: the layer that predicts further tokens, where the checkpoint has
    one."""

    architecture: str
    tree: Decoder
    max_position_embeddings: int
    eos_token_ids: tuple[int, ...]
    dtype: str = "float32"
    mtp: MtpParts | None = None

    @property
    def vocab_size(self) -> int:
        return self.tree.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.tree.hidden_size

    @property
    def num_layers(self) -> int:
        return len(self.tree.blocks)


def model_config(
    family: Family, settings: Settings, generation: Mapping[str, Any] | None = None
) -> ModelConfig:
    """generation: the contents of generation_config.json, where there is one.

    Raises ModelError for a setting that this package would get wrong, and for a value that no model has.
    """
    tree = family.build(settings)
    eos = {
        "eos_token_id": settings.get("eos_token_id"),
        "eos_token_id of generation_config.json": (generation or {}).get("eos_token_id"),
    }
    config = ModelConfig(
        architecture=family.architecture,
        tree=tree,
        max_position_embeddings=settings.size("max_position_embeddings", 2048),
        eos_token_ids=stop_tokens(eos, tree.vocab_size, settings.source),
        dtype=_dtype(settings),
        mtp=family.mtp(settings),
    )
    settings.check_rest()
    return config


def _dtype(settings: Settings) -> str:
    named = {key: settings.get(key) for key in ("dtype", "torch_dtype")}
    for key, value in named.items():
        if not known_or_none(value, DTYPES):
            raise settings.error(key, f"one of {', '.join(DTYPES)}, or null")
    return named["dtype"] or named["torch_dtype"] or "float32"
