"""What `vllm.EngineArgs` is given."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from outrider.cluster.vllm.config import OF_DRAFTS, OWNER, VllmConfig
from outrider.cluster.vllm.speculation import speculation_of
from outrider.foreign import translated
from outrider.validation import refuse_unknown
from outrider.vllm_arguments import OF_LLM

RENAMED = {"kv_cache_memory": "kv_cache_memory_bytes"}
NOT_GIVEN = frozenset(
    {"engine", "chat_template", "generation_config", "override_generation_config", "others"}
    | {"speculative_config", *OF_DRAFTS}
)
"""What is no argument of vLLM's, or is honoured here, where prompts are laid out and sampling is settled."""


def engine_arguments(config: VllmConfig) -> dict[str, Any]:
    """Arguments of `vllm.EngineArgs` for a configuration.

    A head in 4 bits is exported first. Options of older releases that change no answer, such as
    `use_v2_block_manager`, are taken with a warning. Raises ConfigError for an option that the installed vLLM
    does not have, and for what it would refuse with speculation, before anything is loaded.
    """
    given = {
        RENAMED.get(name, name): value
        for name in type(config).model_fields
        if name not in NOT_GIVEN and (value := getattr(config, name)) is not None
    }
    others = _known(config.others) if config.others else {}
    drafting = speculation_of(config)
    if drafting is not None:
        others["speculative_config"] = drafting
    return {**given, "generation_config": "vllm", **others}


def _known(others: dict[str, Any]) -> dict[str, Any]:
    """Those that the installed vLLM has."""
    from vllm.engine.arg_utils import EngineArgs

    known = {field.name for field in fields(EngineArgs)}
    left = translated(others, {name: rule for name, rule in OF_LLM.items() if name not in known}, OWNER)
    refuse_unknown(left, known, OWNER)
    return left
