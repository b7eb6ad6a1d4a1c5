"""Which sampling parameters a model gets where a request names none."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from outrider.errors import ConfigError, ModelError
from outrider.messages import shown
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


class Defaulting(Protocol):
    """The options that say where defaults come from; `EngineConfig` says what each means."""

    @property
    def model(self) -> str: ...

    @property
    def generation_config(self) -> str: ...

    @property
    def override_generation_config(self) -> dict[str, Any]: ...


def default_params(
    config: Defaulting, of_model: SamplingDefaults, ends: Collection[int], vocab: int
) -> Mapping[str, Any]:
    """What `generation_config` and `override_generation_config` come to, by the names of SamplingParams.

    of_model: what the model's files say; ends, vocab: the tokens that end its outputs, of so many.
    What the model asks for and no parameter stands for is logged. Raises ModelError for a value that is out
    of range, and ConfigError for one of `override_generation_config`.
    """
    given = config.override_generation_config
    refuse_unknown(given, PARAMETERS, "override_generation_config")
    own = {PARAMETERS[key]: value for key, value in given.items()}
    SamplingParams(**{name: value for name, value in own.items() if value is not None})
    found = _found(config.generation_config, of_model, ends, vocab)
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


def _found(source: str, of_model: SamplingDefaults, ends: Collection[int], vocab: int) -> SamplingDefaults:
    match source:
        case "auto":
            return of_model
        case "vllm":
            return SamplingDefaults()
        case path:
            values = read_generation_config(path)
            named = stop_tokens({"eos_token_id": values.get("eos_token_id")}, vocab, path)
            if unknown := set(named).difference(ends):
                raise ConfigError(
                    f"generation_config = {path!r} names the ends {sorted(unknown)}, which are none of the "
                    f"model's; take eos_token_id out, and give stop_token_ids with each request"
                )
            return sampling_defaults(values)
