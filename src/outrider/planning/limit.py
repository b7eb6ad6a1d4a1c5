"""Keeping an engine within a limit of memory, or refusing to build it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

from outrider.cache.pages import release_freed
from outrider.config import EngineConfig
from outrider.engine.backend import is_gpu, is_native, planned_device, without_triton
from outrider.errors import ConfigError
from outrider.models.checkpoint import open_checkpoint
from outrider.planning.allowed import Limit, Memory, gpu_memory, limit_of, mib
from outrider.planning.choices import Choices, choices
from outrider.planning.plan import Ground, MemoryPlan, make_plan
from outrider.planning.process import DRIVER, free_bytes, process_bytes
from outrider.speculative_config import DrafterConfig

logger = logging.getLogger(__name__)


def survey(
    config: EngineConfig, limit: Limit, *, beside: int = 0, also: Sequence[DrafterConfig] = ()
) -> Choices:
    """All choices under a limit, from headers alone. beside: bytes of it for something else; also: drafters
    that are a choice, too.

    Raises ConfigError where the process takes more before any model, and ModelError for a model that cannot
    be opened.
    """
    ground = ground_of(config, limit.bytes, beside)
    found = choices(config, ground, also)
    if limit.bytes <= ground.process + beside:
        least = found.smallest
        raise ConfigError(
            f"{limit} is less than what this process takes before it loads any model, "
            f"{mib(ground.process)} for {taker(config)}"
            f"{f', {mib(beside)} for learning' if beside else ''}; {least.words} takes "
            f"{mib(least.plan.least)}"
        )
    return found


def on_gpu(config: EngineConfig) -> bool:
    """Whether it is a GPU's memory that is planned. Raises ConfigError as `choose_device`."""
    return is_gpu(config, planned_device(config.device))


def taker(config: EngineConfig) -> str:
    """What takes the planned memory before any model does."""
    return "its driver" if on_gpu(config) else "Python and libraries"


def ground_of(config: EngineConfig, limit: int, beside: int = 0) -> Ground:
    """What plans of this configuration stand on, under a limit in bytes, of which `beside` are for something
    else. Raises ModelError."""
    if on_gpu(config):
        process = DRIVER
    else:
        if not is_native(config, planned_device(config.device)):
            # With PyTorch, whose memory is measured like that of the others.
            import_module("outrider.ops.torch")
        process = process_bytes()
    target = open_checkpoint(config.model, config.revision, config.tokenizer, config.max_model_len)
    return Ground(limit, process, target, cache(open_checkpoint), beside)


def planned_limit(config: EngineConfig, memory: int | None, *, name: str) -> Limit:
    """What a plan is for. memory: bytes of this machine, or of a GPU that need not be here; None: as it is
    here. name: of the option that gave it. Raises ConfigError for a GPU that is not here."""
    if not on_gpu(config):
        return Limit(process_bytes() + free_bytes() if memory is None else memory, name)
    if memory is None:
        return limit_of(config, gpu_memory(config.device))
    if config.gpu_memory_utilization is None:
        return Limit(memory, name)
    return limit_of(config, Memory(memory, memory))


def limit_here(config: EngineConfig) -> int:
    """Bytes that an engine of this configuration may take: its limit, or what is free."""
    return config.memory_limit or planned_limit(config, None, name="").bytes


def within_limit(config: EngineConfig, beside: Callable[[EngineConfig], int] | None = None) -> EngineConfig:
    """The configuration with which the engine stays within its limit of memory: the process's `memory_limit`,
    if there is one, or what it may take of a GPU. Itself where there is none.

    beside: bytes of the limit that something else takes beside an engine of this configuration.

    The cache gets what the rest leaves, and where nobody said how many requests run at a time, the plan does.
    Raises ConfigError where that does not do, with what would.
    """
    if on_gpu(config):
        return _within_gpu(config)
    if config.gpu_memory_utilization is not None:
        logger.warning(
            "gpu_memory_utilization = %s has no effect: %s is computed on the CPU, whose memory memory_limit "
            "is for",
            config.gpu_memory_utilization,
            config.model,
        )
    if config.memory_limit is None:
        return config
    others = 0 if beside is None else beside(config)
    limit = Limit(config.memory_limit, "memory_limit")
    found = survey(config, limit, beside=others)
    there = process_bytes() + free_bytes()
    if limit.bytes > there:
        raise ConfigError(
            f"{limit} is more than this process can have here, {mib(there)}; lower it to that, or free memory"
        )
    return _refused_or_kept(config, found, limit)


def _within_gpu(config: EngineConfig) -> EngineConfig:
    """What learning takes lies in the processor's memory, and is not counted here."""
    limited = config.memory_limit is not None or config.gpu_memory_utilization is not None
    if not limited and without_triton(config):
        return config  # PyTorch computes, for which there is no plan
    there = gpu_memory(config.device)
    limit = limit_of(config, there)
    if limit.bytes > there.free:
        raise ConfigError(
            f"{limit} is more than the {mib(there.free)} of {mib(there.total)} that are free there: "
            "something else uses the GPU; lower the limit, or free memory"
        )
    if not limited:
        # Nobody asked for more than the defaults, which have to fit.
        names = ("kv_cache_memory", "max_num_seqs")
        config = config.model_copy(update={name: getattr(config, name) for name in names})
        plan = make_plan(config, ground_of(config, limit.bytes))
        if plan.fits:
            return _kept(config, plan)
    return _refused_or_kept(config, survey(config, limit), limit)


def _refused_or_kept(config: EngineConfig, found: Choices, limit: Limit) -> EngineConfig:
    """Raises ConfigError where what was asked for does not fit."""
    plan = found.given.plan
    if not plan.fits:
        raise ConfigError(refusal(found, limit))
    del found
    return _kept(config, plan)


def _kept(config: EngineConfig, plan: MemoryPlan) -> EngineConfig:
    """The configuration with the cache and the requests of its plan."""
    release_freed()
    return config.model_copy(
        update={"kv_cache_memory": plan.kv_cache_memory, "max_num_seqs": plan.max_num_seqs}
    )


def refusal(found: Choices, limit: Limit) -> str:
    """Why what was asked for does not fit, and what would."""
    given = found.given
    return (
        f"{limit} does not hold {given.config.model!r} {given.words}, "
        f"which needs {mib(given.plan.least)}: {given.breakdown}; {advice(found, limit)}"
    )


def advice(found: Choices, limit: Limit) -> str:
    """What to do, as a sentence without its end."""
    best = found.instead
    if best is None:
        least = found.smallest
        return f"nothing else fits either: {limit.raised(least.plan.least)} for {least.words}"
    return f"{best.words} fits, in {mib(best.plan.least)}"
