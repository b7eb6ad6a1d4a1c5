"""Choosing the length policy that a configuration means."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from outrider.config import EngineConfig
from outrider.drafting.auto import AutoLength
from outrider.drafting.base import Drafter
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.language import forecast_of
from outrider.drafting.length import FixedLength, LengthPolicy
from outrider.drafting.link import Link
from outrider.drafting.registry import draft_rows
from outrider.drafting.workloads import WORKLOADS
from outrider.engine.cost_check import costs_hold
from outrider.engine.cost_file import CostFile
from outrider.engine.profile import USUAL, Clock, DraftTimer, Measuring, TargetTimer, draft_cost, target_cost
from outrider.loading import Listener, Loading, unheard
from outrider.models.runner import ModelRunner
from outrider.models.tokenizer import Tokenizer
from outrider.ops.cpu import extension
from outrider.verification.rules import RULES

logger = logging.getLogger(__name__)


def length_policy(
    config: EngineConfig,
    target: ModelRunner,
    tokenizer: Tokenizer,
    drafters: Sequence[Drafter],
    max_model_len: int,
    stored_as: str,
    clock: Clock | None = None,
    measuring: Measuring = USUAL,
    *,
    listener: Listener = unheard,
) -> LengthPolicy:
    """The policy, which for 'auto' knows the costs: those that were saved, if they still hold, or measured
    now, as `measuring` says. clock: of the machine if none is given."""
    speculative = config.speculative
    if speculative is None:
        return FixedLength(0, 0)
    if speculative.num_speculative_tokens != "auto":
        return FixedLength(speculative.num_speculative_tokens, len(drafters))
    file = CostFile(_setting(config, target, stored_as, max_model_len))
    now = clock or time.perf_counter
    passes = {
        "max_rows": config.max_num_batched_tokens,
        "max_model_len": max_model_len,
        "logit_rows": verified_rows(config),
    }
    listener(Loading("measuring passes and drafts"))
    saved = file.load()
    if saved is not None and not _hold(saved, target, tokenizer, drafters, passes, now, measuring):
        logger.info("%s is no longer true and is measured again", file.path)
        saved = None
    if saved is None:
        costs = target_cost(target, seconds=measuring.seconds, clock=now, **passes)
        share = measuring.seconds / 2 / len(drafters)
        drafting = [draft_cost(each, target, tokenizer, seconds=share, clock=now) for each in drafters]
        file.save(costs, drafting)
    else:
        costs, drafting = saved
    target.forget()  # the cache of made-up requests: memory that an idle engine would go on holding
    for drafter in drafters:
        drafter.rest()
    bounds = WORKLOADS[speculative.workload]
    links = [
        Link(drafter, cost, forecast_of(drafter, bounds.most, bounds.acceptance), named.name)
        for drafter, cost, named in zip(drafters, drafting, speculative.drafters, strict=True)
    ]
    trees = RULES[speculative.acceptance].trees
    return AutoLength(links, costs, bounds, lambda: file.save(costs, drafting), trees=trees, clock=now)


def verified_rows(config: EngineConfig) -> int:
    """Rows of a pass that need logits at most: each request's last token and a whole draft."""
    return config.max_num_seqs * (1 + draft_rows(config.speculative))


def _hold(
    saved: tuple[TargetCost, Sequence[DraftCost]],
    target: ModelRunner,
    tokenizer: Tokenizer,
    drafters: Sequence[Drafter],
    passes: Mapping[str, int],
    clock: Clock,
    measuring: Measuring,
) -> bool:
    """Whether saved costs are of these drafters, and a few passes and drafts take what they say."""
    costs, drafting = saved
    if len(drafting) != len(drafters):
        return False
    timer = TargetTimer(target, clock=clock, **passes)
    timers = [DraftTimer(drafter, target, tokenizer, clock) for drafter in drafters]
    return costs_hold(costs, timer, drafting, timers, measuring)


def _setting(config: EngineConfig, target: ModelRunner, stored_as: str, max_model_len: int) -> dict[str, Any]:
    """Everything that costs depend on."""
    assert config.speculative is not None
    model, facts = target.model.config, target.facts
    return {
        "model": _resolved(config.model),
        "tree": sha256(repr(model.tree).encode()).hexdigest(),
        "stored_as": stored_as,
        "dtype": config.dtype,
        "quantization": config.quantization,
        "kv_cache": facts.cache_dtype,
        "machine": platform.node(),
        "device": facts.model or facts.device,
        "kernels": facts.kernels,
        "build": _build(native=facts.kernels is not None),
        "threads": facts.threads,
        "max_num_batched_tokens": config.max_num_batched_tokens,
        "max_model_len": max_model_len,
        "blocks": [target.pool.num_blocks, target.block_size],
        "drafters": [
            [drafter.method, _resolved(drafter.model or ""), drafter.quantization]
            for drafter in config.speculative.drafters
        ],
        "draft_quantization": config.speculative.draft_quantization,
        "draft_vocab_size": config.speculative.draft_vocab_size,
    }


def _build(*, native: bool) -> list[str]:
    """What tells apart the code that costs were measured with: versions, and the bytes of the native kernels,
    since two builds of one version may differ."""
    versions = [version("outrider"), platform.python_version()]
    if native:
        return [*versions, sha256(Path(str(extension.require().__file__)).read_bytes()).hexdigest()]
    return [*versions, version("torch")]


def _resolved(name: str) -> str:
    """A path in full; a name as it is."""
    path = Path(name)
    return str(path.resolve()) if name and path.exists() else name
