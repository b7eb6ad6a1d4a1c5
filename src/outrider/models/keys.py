"""Reading config.json: every key is used, harmless, or refused.

Nothing that would change an answer is passed over: a key that is not applied has to have the value with which
it does nothing. Keys that are not known at all are named in a warning, and not refused: real checkpoints
carry notes of the tools that made them.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cache
from typing import Any

from transformers import LlamaConfig, MistralConfig

from outrider.errors import ModelError
from outrider.messages import listed, reason, shown
from outrider.models.config import SUPPORTED, architecture_of, check_values, stop_tokens
from outrider.models.key_tables import CHECKED, HARMLESS, NEUTRAL, USED
from outrider.models.rope import HARMLESS as HARMLESS_OF_ROPE
from outrider.models.rope import check_rope, is_number

logger = logging.getLogger(__name__)

FAMILIES: tuple[type[Any], ...] = (LlamaConfig, MistralConfig)
"""The classes whose defaults stand in for keys that are missing."""


def transformers_config(raw: Mapping[str, Any], source: str) -> Any:
    """transformers' configuration, of those keys of config.json that are used.

    Raises ModelError, naming `source`, for an architecture that is not supported, and for a key that would
    change what the model computes and is not applied.
    """
    kind = _family(raw, source)
    unknown = []
    for key, value in raw.items():
        if key in NEUTRAL:
            if value is not None and not any(_same(value, neutral) for neutral in NEUTRAL[key]):
                allowed = " or ".join(map(shown, NEUTRAL[key])) or "null"
                raise ModelError(f"{source}: {key} = {shown(value)} is not supported; supported is {allowed}")
        elif key not in USED | CHECKED | HARMLESS and not key.startswith("_"):
            unknown.append(key)
    if unknown:
        _warn(f"{source}: config.json has keys that are not known, and are not used: {listed(unknown, 12)}")
    used = {key: raw[key] for key in raw if key in USED}
    check_values(used, source)
    stop_tokens({"eos_token_id": used.get("eos_token_id")}, used.get("vocab_size", kind.vocab_size), source)
    used |= _rope(used, source)
    usual = getattr(kind, "sliding_window", None)  # Llama's class has no such field
    window = None if usual is None else used.get("sliding_window", usual)
    _check_layers(raw, window, source)
    try:
        return kind(**{"eos_token_id": None} | used | {"sliding_window": window})
    except Exception as error:  # validation errors of many kinds
        raise ModelError(f"{source}: config.json is not a valid configuration: {reason(error)}") from error


def _family(raw: Mapping[str, Any], source: str) -> type[Any]:
    """The class of the architecture, or of model_type where `architectures` is missing."""
    named, model_type = raw.get("architectures"), raw.get("model_type")
    what, name = "architecture", named[0] if named and isinstance(named, list) else named
    if not named:
        what, name = "model_type", model_type
    found = [kind for kind in FAMILIES if name in (architecture_of(kind), kind.model_type)]
    if not found:
        said = (
            f"{what} {shown(name)} is not supported"
            if name is not None
            else "config.json has no 'architectures'"
        )
        raise ModelError(f"{source}: {said}; supported are {', '.join(SUPPORTED)}")
    if model_type not in (None, found[0].model_type):
        raise ModelError(
            f"{source}: config.json has architecture {name!r} and model_type {shown(model_type)}; give those "
            "that belong together"
        )
    return found[0]


def _rope(used: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The settings of the rotary embedding, which may stand in several places if they agree."""
    theta = used.get("rope_theta")
    if theta is not None and not is_number(theta):
        raise ModelError(f"{source}: rope_theta = {shown(theta)}; it has to be a number greater than 0")
    places = {name: used[name] for name in ("rope_scaling", "rope_parameters") if used.get(name)}
    for name, value in places.items():
        if not isinstance(value, Mapping):
            raise ModelError(f"{source}: {name} = {shown(value)}; it has to be an object or null")
        check_rope(value, source)
        inner = value.get("rope_theta", theta)
        if theta is not None and inner != theta:
            raise ModelError(f"{source}: rope_theta = {shown(theta)}, and {shown(inner)} in {name}; give one")
    if len(places) == 2 and places["rope_scaling"] != places["rope_parameters"]:
        raise ModelError(f"{source}: rope_scaling and rope_parameters differ; give one of them")
    return {
        name: {
            key: given for key, given in value.items() if given is not None and key not in HARMLESS_OF_ROPE
        }
        for name, value in places.items()
    }


def _check_layers(raw: Mapping[str, Any], window: int | None, source: str) -> None:
    """All layers are alike: with the window or without, and each with rotary embedding. window: Mistral's."""
    wanted = raw.get("sliding_window") is not None and raw.get("use_sliding_window") is not False
    if wanted != (window is not None) and "sliding_window" in raw:
        raise ModelError(
            f"{source}: sliding_window = {shown(raw['sliding_window'])} with use_sliding_window = "
            f"{shown(raw.get('use_sliding_window'))} is not supported; Llama has no window, and Mistral's "
            "is that of all layers"
        )
    kind = "full_attention" if window is None else "sliding_attention"
    for name, of_each in (("layer_types", kind), ("no_rope_layers", 1)):
        layers = raw.get(name) or []
        if not isinstance(layers, list) or any(not _same(one, of_each) for one in layers):
            raise ModelError(
                f"{source}: {name} = {shown(layers)} is not supported; all have to be {of_each!r}"
            )


def _same(a: Any, b: Any) -> bool:
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


@cache
def _warn(message: str) -> None:
    """Once a process, however often the same folder is opened."""
    logger.warning(message)
