"""Which sampling parameters a model gets where a request names none."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from outrider.config import EngineConfig
from outrider.errors import ConfigError, ModelError
from outrider.messages import shown
from outrider.models.checkpoint import Checkpoint
from outrider.models.generation import (
    PARAMETERS,
    SamplingDefaults,
    read_generation_config,
    sampling_defaults,
)
from outrider.models.settings import stop_tokens
from outrider.params import SamplingParams
from outrider.validation import refuse_unknown

logger = logging.getLogger(__name__)


def default_params(config: EngineConfig, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """What `generation_config` and `override_generation_config` come to, by the names of SamplingParams.

    What the model asks for and no parameter stands for is logged. Raises ModelError for a value that is out
    of range, and ConfigError for one of `override_generation_config`.
    """
    given = config.override_generation_config
    refuse_unknown(given, PARAMETERS, "override_generation_config")
    own = {PARAMETERS[key]: value for key, value in given.items()}
    SamplingParams(**{name: value for name, value in own.items() if value is not None})
    found = _found(config, checkpoint)
    if found.others:
        logger.warning(
            "sampling defaults of %s are not applied: %s; no sampling parameter does the same",
            config.model,
            ", ".join(f"{name} = {shown(value)}" for name, value in found.others.items()),
        )
    params = {name: value for name, value in {**found.params, **own}.items() if value is not None}
    try:
        SamplingParams(**params)
    except ConfigError as error:
        raise ModelError(
            f"sampling defaults of {config.model!r} cannot be used: {error}; mend the file, or leave them "
            "out with generation_config = 'vllm'"
        ) from None
    return params


def _found(config: EngineConfig, checkpoint: Checkpoint) -> SamplingDefaults:
    match config.generation_config:
        case "auto":
            return checkpoint.sampling_defaults
        case "vllm":
            return SamplingDefaults()
        case path:
            values = read_generation_config(path)
            model = checkpoint.config
            ends = stop_tokens({"eos_token_id": values.get("eos_token_id")}, model.vocab_size, path)
            if unknown := set(ends).difference(model.eos_token_ids):
                raise ConfigError(
                    f"generation_config = {path!r} names the ends {sorted(unknown)}, which are none of the "
                    f"model's; take eos_token_id out, and give stop_token_ids with each request"
                )
            return sampling_defaults(values)
