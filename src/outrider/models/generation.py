"""What the authors of a model would have sampling be.

generation_config.json says it, config.json before there was one, and in a GGUF file `general.sampling.*`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from outrider.models.json_file import read_json

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
PARAMETERS = {
    **{name: name for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")},
    "max_new_tokens": "max_tokens",
}
"""The keys that vLLM takes as defaults of a request, and the names that SamplingParams has for them."""
GGUF_PREFIX = "general.sampling."
GGUF_NAMES = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}
"""llama.cpp's names of what has another one here."""
GGUF_NEUTRAL: dict[str, Any] = {"xtc_probability": 0, "mirostat": 0}
"""llama.cpp's samplers that generation_config.json does not know, and the values that switch them off."""
GGUF_SUPPRESSED = "tokenizer.ggml.suppress_tokens"
"""The key for `suppress_tokens` of generation_config.json."""
GGUF_DETAILS = {"xtc_threshold", "mirostat_tau", "mirostat_eta"}
"""Settings of such a sampler. They say nothing that the sampler's own key does not."""


@dataclass(frozen=True)
class SamplingDefaults:
    """What sampling should be where a request does not say, as far as that is not neutral.

    params: by the names of SamplingParams; others: by the names of the file, what no parameter stands for.
    """

    params: Mapping[str, Any] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)


def sampling_defaults(generation: Mapping[str, Any]) -> SamplingDefaults:
    """The defaults in generation_config.json. `do_sample: false` switches those off that shape a
    distribution."""
    off = SAMPLED if generation.get("do_sample") is False else ()
    keys = {*NEUTRAL, *PARAMETERS}.difference(off)
    return _defaults({key: value for key, value in generation.items() if key in keys})


def gguf_sampling_defaults(metadata: Mapping[str, Any]) -> SamplingDefaults:
    """The defaults in the metadata of a GGUF file."""
    given = {
        key.removeprefix(GGUF_PREFIX): value for key, value in metadata.items() if key.startswith(GGUF_PREFIX)
    }
    told = {GGUF_NAMES.get(key, key): _shortest(given[key]) for key in given if key not in GGUF_DETAILS}
    return _defaults(told | {"suppress_tokens": metadata.get(GGUF_SUPPRESSED) or None})


def read_generation_config(path: str) -> Mapping[str, Any]:
    """A generation_config.json, given by itself or by its folder. Raises ModelError."""
    given = Path(path).expanduser()
    return read_json(given / "generation_config.json" if given.is_dir() else given)


def _defaults(given: Mapping[str, Any]) -> SamplingDefaults:
    neutral = NEUTRAL | GGUF_NEUTRAL
    told = {key: value for key, value in given.items() if value is not None and value != neutral.get(key)}
    return SamplingDefaults(
        {PARAMETERS[key]: value for key, value in told.items() if key in PARAMETERS},
        {key: value for key, value in told.items() if key not in PARAMETERS},
    )


def _shortest(value: Any) -> Any:
    """A float32 as its writer gave it: 0.95, and not 0.949999988."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
