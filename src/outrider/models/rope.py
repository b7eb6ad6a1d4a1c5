"""Rotary frequencies, of the settings that Hugging Face's configurations have.

The arithmetic is that of transformers, in float32; the tests hold one against the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.ops.shapes import Rope

Frequencies = NDArray[np.float32]
KINDS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "proportional": ("factor",),
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
    "longrope": ("factor", "attention_factor", "long_factor", "short_factor"),
    "divisors": ("divisors",),
}
"""The kinds whose frequencies do not depend on the sequence's length, and the settings of each. 'divisors' is
how GGUF files spell some of the others: one number a frequency."""
NEEDED = {
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor",),
    "longrope": ("long_factor", "short_factor"),
}
LISTS = ("long_factor", "short_factor", "divisors")
STILL = 1e30
"""From this divisor on, a pair does not turn, as GGUF files have it of Gemma 4."""
OF_ALL = ("rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings")
HARMLESS = ("finetuned",)  # of which transformers would warn


@dataclass(frozen=True)
class RopeSettings:
    """What frequencies are computed from.

    parameters: of the kind, checked by `check_rope`. dims: dimensions of a head that turn. max_positions: of
    the model; positions: that requests of this engine may have.
    """

    parameters: Mapping[str, Any]
    dims: int
    theta: float
    max_positions: int
    positions: int

    @property
    def original(self) -> int:
        """Positions that the model was first trained with."""
        return int(self.parameters.get("original_max_position_embeddings") or self.max_positions)

    @property
    def periods(self) -> Frequencies:
        """Positions in which each pair of dimensions turns by a radian, without scaling."""
        exponents = np.arange(0, self.dims, 2, dtype=np.float32) / np.float32(self.dims)
        periods: Frequencies = np.power(np.float32(self.theta), exponents)
        return periods

    @property
    def plain(self) -> Frequencies:
        """Frequencies without scaling."""
        return np.float32(1) / self.periods


def rotary(settings: RopeSettings, source: str, *, interleaved: bool = False) -> Rope:
    """The frequencies, and the factor on cos and sin. Raises ModelError, naming `source`, where the settings
    give none."""
    kind = _kind(settings.parameters)
    with np.errstate(all="ignore"):
        try:
            inv_freq, factor = _COMPUTED[kind](settings)
        except (ArithmeticError, ValueError) as error:
            raise ModelError(
                f"{source}: rope scaling {shown(dict(settings.parameters))} fails: {error}"
            ) from error
    if not (np.isfinite(inv_freq).all() and math.isfinite(factor)):
        raise ModelError(
            f"{source}: rope scaling {shown(dict(settings.parameters))} gives frequencies that are not finite"
        )
    return Rope(tuple(inv_freq.astype(np.float32).tolist()), float(factor), interleaved)


def check_rope(parameters: Any, source: str) -> None:
    """Raise ModelError for settings of a wrong type, and for those that their kind does not use or needs."""
    if not isinstance(parameters, Mapping):
        raise ModelError(f"{source}: rope scaling {shown(parameters)} is not an object with 'rope_type'")
    kind = _kind(parameters)
    if not isinstance(kind, str) or kind not in KINDS:
        raise ModelError(
            f"{source}: rope scaling {shown(kind)} is not supported; supported are "
            f"{', '.join(kind for kind in KINDS if kind != 'divisors')}"
        )
    if parameters.get("type", kind) != kind and _kind({"type": parameters["type"]}) != kind:
        raise ModelError(
            f"{source}: rope scaling has rope_type {kind!r} and type {shown(parameters['type'])}; give one"
        )
    for name, value in parameters.items():
        if name in ("rope_type", "type", *HARMLESS) or value is None:
            continue
        if name == "factor" and is_number(value) and value == 1:
            continue
        if name not in (*OF_ALL, *KINDS[kind]):
            raise ModelError(f"{source}: rope scaling {kind!r} does not use {shown(name)} = {shown(value)}")
        if name == "truncate":
            right, what = isinstance(value, bool), "true or false"
        elif name in LISTS:
            right, what = (
                isinstance(value, Sequence) and all(map(_is_divisor, value)),
                "numbers greater than 0",
            )
        else:
            right, what = _is_positive(value), "a number greater than 0"
        if not right:
            raise ModelError(f"{source}: {name} = {shown(value)} of rope scaling; it has to be {what}")
    for name in NEEDED.get(kind, ()):
        if parameters.get(name) is None:
            raise ModelError(f"{source}: rope scaling {kind!r} needs {name}, which is missing")
    if kind == "llama3" and parameters["low_freq_factor"] >= parameters["high_freq_factor"]:
        raise ModelError(f"{source}: high_freq_factor of rope scaling has to be greater than low_freq_factor")


def is_number(value: Any) -> bool:
    """Whether a value from JSON is a number; its booleans are numbers to Python."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return is_number(value) and 0 < value < 1e30


def _is_divisor(value: Any) -> bool:
    return _is_positive(value) or (is_number(value) and STILL <= value < math.inf)


def _kind(parameters: Mapping[str, Any]) -> Any:
    """What older files call 'su' is longrope."""
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    return "longrope" if kind == "su" else kind


def _default(s: RopeSettings) -> tuple[Frequencies, float]:
    return s.plain, 1.0


def _linear(s: RopeSettings) -> tuple[Frequencies, float]:
    return np.asarray(s.plain / np.float32(s.parameters["factor"]), np.float32), 1.0


def _proportional(s: RopeSettings) -> tuple[Frequencies, float]:
    """Gemma 4's: all dimensions are paired, and the pairs behind a share of them turn by nothing."""
    turning = int(s.parameters.get("partial_rotary_factor", 1) * s.dims // 2)
    frequencies = s.plain / np.float32(s.parameters.get("factor", 1))
    return np.where(np.arange(s.dims // 2) < turning, frequencies, 0).astype(np.float32), 1.0


def _divisors(s: RopeSettings) -> tuple[Frequencies, float]:
    divisors = np.array(s.parameters["divisors"], np.float32)
    return np.where(divisors < STILL, s.plain / divisors, 0).astype(np.float32), 1.0


def _llama3(s: RopeSettings) -> tuple[Frequencies, float]:
    factor, low, high = (s.parameters[name] for name in NEEDED["llama3"])
    wavelength = np.float32(2 * math.pi) / s.plain
    slow = np.where(wavelength > s.original / low, s.plain / np.float32(factor), s.plain)
    smooth = (s.original / wavelength - low) / (high - low)
    smoothed = (1 - smooth) * slow / np.float32(factor) + smooth * slow
    medium = (wavelength >= s.original / high) & (wavelength <= s.original / low)
    return np.asarray(np.where(medium, smoothed, slow), np.float32), 1.0


def _yarn(s: RopeSettings) -> tuple[Frequencies, float]:
    """YaRN (Peng et al., 2023)."""
    p, factor = s.parameters, s.parameters["factor"]

    def mscale(weight: float = 1.0) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    attention = p.get("attention_factor")
    if attention is None:
        both = p.get("mscale") and p.get("mscale_all_dim")
        attention = mscale(p["mscale"]) / mscale(p["mscale_all_dim"]) if both else mscale()

    def dimension(rotations: float) -> float:
        """That turns so often over the positions of training."""
        return s.dims * math.log(s.original / (rotations * 2 * math.pi)) / (2 * math.log(s.theta))

    low, high = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, s.dims - 1)
    high += 0.001 if low == high else 0
    ramp: Frequencies = np.clip((np.arange(s.dims // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    scaled = np.float32(1) / (np.float32(factor) * s.periods)
    return scaled * ramp + s.plain * (1 - ramp), attention


def _longrope(s: RopeSettings) -> tuple[Frequencies, float]:
    """LongRoPE (Ding et al., 2024). Which of its two lists is used depends on the positions that requests may
    have, and not on those of one text: a token's K may not change while its text grows."""
    p = s.parameters
    factor = p.get("factor") or s.max_positions / s.original
    attention = p.get("attention_factor")
    if attention is None:
        attention = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(s.original))
    divisors = np.array(p["long_factor" if s.positions > s.original else "short_factor"], np.float32)
    if len(divisors) != s.dims // 2:
        raise ValueError(f"a list has {len(divisors)} values; {s.dims} dimensions turn")
    return np.float32(1) / (divisors * s.periods), attention


_COMPUTED: dict[str, Callable[[RopeSettings], tuple[Frequencies, float]]] = {
    "default": _default,
    "linear": _linear,
    "proportional": _proportional,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "divisors": _divisors,
}
