"""What generation_config.json, and config.json before there was one, would have sampling be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEUTRAL: dict[str, Any] = {
    "temperature": 1,
    "top_k": 0,
    "top_p": 1,
    "min_p": 0,
    "typical_p": 1,
    "epsilon_cutoff": 0,
    "eta_cutoff": 0,
    "repetition_penalty": 1,
    "no_repeat_ngram_size": 0,
    "penalty_alpha": 0,
    "guidance_scale": 1,
    "num_beams": 1,
    "min_length": 0,
    "min_new_tokens": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "stop_strings": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
}
"""Keys that change which tokens are chosen, and the value with which each changes nothing, beside null."""
SAMPLED = ("temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")


def sampling_defaults(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that are not neutral. `do_sample: false` switches those off that shape a distribution."""
    off = SAMPLED if generation.get("do_sample") is False else ()
    given = {key: generation.get(key) for key in NEUTRAL if key not in off}
    return {key: value for key, value in given.items() if value not in (None, NEUTRAL[key])}
