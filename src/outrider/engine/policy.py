"""Choosing the length policy that a configuration means."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from outrider.config import EngineConfig
from outrider.drafting.auto import WORKLOADS, AutoLength, Link
from outrider.drafting.base import Drafter
from outrider.drafting.forecast import Forecast
from outrider.drafting.length import FixedLength, LengthPolicy
from outrider.engine.cost_file import CostFile
from outrider.engine.profile import SECONDS, draft_cost, target_cost
from outrider.models.runner import ModelRunner


def length_policy(
    config: EngineConfig,
    target: ModelRunner,
    tokenizer: PreTrainedTokenizerBase,
    drafters: Sequence[Drafter],
    max_model_len: int,
    stored_as: str,
) -> LengthPolicy:
    """The policy, which for 'auto' knows the costs: those that were saved, or measured now."""
    speculative = config.speculative
    if speculative is None:
        return FixedLength(0, 0)
    if speculative.num_speculative_tokens != "auto":
        return FixedLength(speculative.num_speculative_tokens, len(drafters))
    file = CostFile(_setting(config, target, stored_as, max_model_len))
    saved = file.load()
    if saved is None or len(saved[1]) != len(drafters):
        with target.model.backend.undisturbed():
            costs = target_cost(target, max_rows=config.max_num_batched_tokens, max_model_len=max_model_len)
            share = SECONDS / 2 / len(drafters)
            drafting = [draft_cost(drafter, target, tokenizer, seconds=share) for drafter in drafters]
        file.save(costs, drafting)
    else:
        costs, drafting = saved
    bounds = WORKLOADS[speculative.workload]
    links = [
        Link(drafter, cost, Forecast(bounds.most, bounds.acceptance))
        for drafter, cost in zip(drafters, drafting, strict=True)
    ]
    return AutoLength(links, costs, bounds, save=lambda: file.save(costs, drafting))


def _setting(config: EngineConfig, target: ModelRunner, stored_as: str, max_model_len: int) -> dict[str, Any]:
    """Everything that costs depend on."""
    assert config.speculative is not None
    model, backend = target.model.config, target.model.backend
    cuda = backend.device.type == "cuda"
    return {
        "model": _resolved(config.model),
        "shape": [model.num_layers, model.hidden_size, model.intermediate_size, model.vocab_size],
        "stored_as": stored_as,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "kv_cache": str(backend.cache_dtype),
        "machine": platform.node(),
        "device": torch.cuda.get_device_name(backend.device) if cuda else str(backend.device),
        "kernels": backend.instruction_set or f"torch {torch.__version__}",
        "threads": backend.num_threads,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_model_len": max_model_len,
        "blocks": [target.pool.num_blocks, target.block_size],
        "drafters": [
            [drafter.method, _resolved(drafter.model or ""), drafter.quantization]
            for drafter in config.speculative.drafters
        ],
        "draft_quantization": config.speculative.draft_quantization,
    }


def _resolved(name: str) -> str:
    """A path in full; a name as it is."""
    path = Path(name)
    return str(path.resolve()) if name and path.exists() else name
