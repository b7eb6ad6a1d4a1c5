"""The families of models that run, each by the names that files give it."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.families import (
    gemma2,
    gemma3,
    gemma4,
    glm4,
    glm4_moe,
    gpt_oss,
    granite,
    granite_moe,
    lfm2,
    lfm2_moe,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi3,
    qwen,
    qwen3_5,
    qwen3_next,
    qwen_moe,
    smollm3,
)
from outrider.models.families.family import Family
from outrider.models.gguf_metadata import Metadata
from outrider.models.settings import Settings

FAMILIES: tuple[Family, ...] = (
    *llama.FAMILIES,
    *mistral.FAMILIES,
    *qwen.FAMILIES,
    *gemma2.FAMILIES,
    *gemma3.FAMILIES,
    *gemma4.FAMILIES,
    *phi3.FAMILIES,
    *smollm3.FAMILIES,
    *olmo2.FAMILIES,
    *granite.FAMILIES,
    *glm4.FAMILIES,
    *glm4_moe.FAMILIES,
    *mixtral.FAMILIES,
    *qwen_moe.FAMILIES,
    *granite_moe.FAMILIES,
    *gpt_oss.FAMILIES,
    *qwen3_next.FAMILIES,
    *qwen3_5.FAMILIES,
    *lfm2.FAMILIES,
    *lfm2_moe.FAMILIES,
)
WITH_IMAGES = {
    "Gemma3ForConditionalGeneration": ("gemma3", "gemma3_text"),
    "Gemma4ForConditionalGeneration": ("gemma4", "gemma4_text"),
    "Gemma4UnifiedForConditionalGeneration": ("gemma4_unified", "gemma4_unified_text"),
    "Lfm2VlForConditionalGeneration": ("lfm2_vl", "lfm2"),
    "Mistral3ForConditionalGeneration": ("mistral3", "mistral"),
    "Qwen3_5ForConditionalGeneration": ("qwen3_5", "qwen3_5_text"),
    "Qwen3_5MoeForConditionalGeneration": ("qwen3_5_moe", "qwen3_5_moe_text"),
}
"""Architectures that read images too, the model_type of each, and of its text part where that has none."""
OF_TEXT = ("tie_word_embeddings", "dtype", "torch_dtype", "eos_token_id")
"""Keys of a model that reads images which hold for its text part, where that does not have them."""


def config_settings(raw: Mapping[str, Any], source: str, positions: int | None) -> tuple[Family, Settings]:
    """The family of a config.json, and its settings: of the text part, where it has others.

    positions: see `Settings`. Raises ModelError for an architecture that is not supported.
    """
    named = raw.get("architectures")
    whole = (
        WITH_IMAGES.get(named[0]) if isinstance(named, list) and named and isinstance(named[0], str) else None
    )
    if whole is not None:
        raw = _text_part(raw, source, *whole)
    family = _family(raw, source)
    return family, Settings({**family.defaults, **raw}, source, positions)


def _text_part(raw: Mapping[str, Any], source: str, model_type: str, usual: str) -> dict[str, Any]:
    text = raw.get("text_config")
    if not isinstance(text, Mapping):
        raise ModelError(f"{source}: text_config = {shown(text)}; it has to be an object")
    if raw.get("model_type") not in (None, model_type):
        raise ModelError(
            f"{source}: config.json has architecture {raw['architectures'][0]!r} and model_type "
            f"{shown(raw['model_type'])}; give those that belong together"
        )
    elsewhere = ("text_config", "vision_config", "audio_config", "architectures", "model_type", *OF_TEXT)
    rest = {key: value for key, value in raw.items() if key not in elsewhere and text.get(key) != value}
    Settings(rest, source).check_rest()
    above = {key: raw[key] for key in OF_TEXT if raw.get(key) is not None}
    ends = {"eos_token_id": above["eos_token_id"]} if "eos_token_id" in above else {}
    return {"model_type": usual, **above, **text, **ends, "architectures": None}


def _family(raw: Mapping[str, Any], source: str) -> Family:
    """The family of the architecture, or of model_type where `architectures` is missing."""
    named, model_type = raw.get("architectures"), raw.get("model_type")
    what, name = "architecture", named[0] if named and isinstance(named, list) else named
    if not named:
        what, name = "model_type", model_type
    found = [family for family in FAMILIES if name in (family.architecture, family.model_type)]
    if not found and name is None:
        raise ModelError(
            f"{source}: config.json has no 'architectures'; give the model's, as 'LlamaForCausalLM'"
        )
    if not found:
        known = [known for family in FAMILIES for known in (family.architecture, family.model_type)]
        raise ModelError(f"{source}: {what} {shown(name)} is not supported{_near(name, known)}")
    if model_type not in (None, found[0].model_type):
        raise ModelError(
            f"{source}: config.json has architecture {name!r} and model_type {shown(model_type)}; give those "
            "that belong together"
        )
    return found[0]


def family_of_gguf(metadata: Metadata) -> Family:
    """The family of a GGUF file's `general.architecture`, which a number may mark among others of the same.
    Raises ModelError for an architecture that is not supported."""
    architecture = metadata.text("general.architecture", "")
    found = [family for family in FAMILIES if family.gguf is not None and family.gguf == architecture]
    for family in sorted(found, key=lambda family: family.gguf_mark is None):
        if family.gguf_mark is None or metadata.integer(f"{family.gguf}.{family.gguf_mark}", 0):
            return family
    known = [family.gguf for family in FAMILIES if family.gguf is not None]
    raise ModelError(
        f"{metadata.source}: architecture {shown(architecture)} is not supported{_near(architecture, known)}"
    )


def _near(name: Any, known: list[str]) -> str:
    """What might have been meant, and where all names stand."""
    near = get_close_matches(name, known, n=3, cutoff=0.5) if isinstance(name, str) else []
    return f"; near it are {', '.join(near)}" * bool(near) + "; `outrider models` lists what is"
