"""Rotary frequencies, of the settings that Hugging Face's configurations have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from outrider.errors import ModelError
from outrider.messages import reason, shown

KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": (
        "factor",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
}
"""The kinds whose frequencies do not depend on the sequence's length, and the settings of each."""
OF_ALL = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
HARMLESS = ("finetuned",)  # of which transformers would warn


def rotary(config: Any, head_dim: int, source: str) -> tuple[tuple[float, ...], float]:
    """head_dim / 2 frequencies and the factor on cos and sin, as transformers computes them.

    config: of transformers. Raises ModelError, naming `source`, for a setting that is not applied.
    """
    parameters = config.rope_parameters
    check_rope(parameters, source)
    kind = parameters.get("rope_type", "default")
    if kind == "default":
        exponents = torch.arange(0, head_dim, 2, dtype=torch.int64).float() / head_dim
        inv_freq, factor = 1.0 / float(parameters["rope_theta"]) ** exponents, 1.0
    else:
        try:
            inv_freq, factor = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise ModelError(f"{source}: rope scaling {shown(parameters)} fails: {reason(error)}") from error
    frequencies = tuple(inv_freq.tolist())
    if not all(math.isfinite(number) for number in (*frequencies, factor)):
        raise ModelError(f"{source}: rope scaling {shown(parameters)} gives frequencies that are not finite")
    return frequencies, float(factor)


def check_rope(parameters: Any, source: str) -> None:
    """Raise ModelError for settings of a wrong type, and for those that their kind does not use."""
    if not isinstance(parameters, Mapping):
        raise ModelError(f"{source}: rope scaling {shown(parameters)} is not an object with 'rope_type'")
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(
            f"{source}: rope scaling {shown(kind)} is not supported; supported are {', '.join(KINDS)}"
        )
    if parameters.get("type", kind) != kind:
        raise ModelError(
            f"{source}: rope scaling has rope_type {kind!r} and type {shown(parameters['type'])}; give one"
        )
    for name, value in parameters.items():
        if name in ("rope_type", "type", *HARMLESS) or value is None or (name, value) == ("factor", 1):
            continue
        if name not in (*OF_ALL, *KINDS[kind]):
            raise ModelError(f"{source}: rope scaling {kind!r} does not use {shown(name)} = {shown(value)}")
        if name == "truncate":
            right, what = isinstance(value, bool), "true or false"
        else:
            right, what = is_number(value) and 0 < value < 1e30, "a number greater than 0"
        if not right:
            raise ModelError(f"{source}: {name} = {shown(value)} of rope scaling; it has to be {what}")
    if kind == "llama3" and parameters.get("low_freq_factor", 0) >= parameters.get("high_freq_factor", 1e30):
        raise ModelError(f"{source}: high_freq_factor of rope scaling has to be greater than low_freq_factor")
    if parameters.get("partial_rotary_factor") not in (None, 1):
        raise ModelError(f"{source}: partial_rotary_factor is not supported; it has to be 1")


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number; its booleans are numbers to Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)
