"""Keeping an engine within a limit of memory, or refusing to build it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module

from outrider.cache.pages import release_freed
from outrider.config import DrafterConfig, EngineConfig
from outrider.engine.backend import choose_device, is_native
from outrider.errors import ConfigError
from outrider.models.checkpoint import open_checkpoint
from outrider.planning.choices import Choices, choices, mib
from outrider.planning.plan import Ground
from outrider.planning.process import free_bytes, process_bytes


def survey(
    config: EngineConfig, limit: int, *, name: str, beside: int = 0, also: Sequence[DrafterConfig] = ()
) -> Choices:
    """All choices under a limit in bytes, from headers alone. name: the option that gave it; beside: bytes of
    it for something else; also: drafters that are a choice, too.

    Raises ConfigError where the process takes more before any model, and ModelError for a model that cannot
    be opened.
    """
    ground = ground_of(config, limit, beside)
    found = choices(config, ground, also)
    if limit <= ground.process + beside:
        least = found.smallest
        raise ConfigError(
            f"{_given(name, limit)} is less than what this process takes before it loads any model, "
            f"{mib(ground.process)} for Python and libraries"
            f"{f', {mib(beside)} for learning' if beside else ''}; {least.words} takes "
            f"{mib(least.plan.least)}"
        )
    return found


def ground_of(config: EngineConfig, limit: int, beside: int = 0) -> Ground:
    """What plans of this configuration stand on, under a limit in bytes, of which `beside` are for something
    else. Raises ModelError."""
    if not is_native(config, choose_device(config.device)):
        import_module("outrider.ops.torch")  # with PyTorch, whose memory is measured like that of the others
    process = process_bytes()
    target = open_checkpoint(config.model, config.revision, config.tokenizer, config.max_model_len)
    return Ground(limit, process, target, cache(open_checkpoint), beside)


def within_limit(config: EngineConfig, beside: Callable[[EngineConfig], int] | None = None) -> EngineConfig:
    """The configuration with which the engine stays within `memory_limit`; itself where there is none.

    beside: bytes of the limit that something else takes beside an engine of this configuration.

    The cache gets what the rest leaves, and where nobody said how many requests run at a time, the plan does.
    Raises ConfigError where that does not do, with what would.
    """
    if config.memory_limit is None:
        return config
    others = 0 if beside is None else beside(config)
    found = survey(config, config.memory_limit, name="memory_limit", beside=others)
    there = process_bytes() + free_bytes()
    if config.memory_limit > there:
        raise ConfigError(
            f"{_given('memory_limit', config.memory_limit)} is more than this process can have here, "
            f"{there // 2**20} MiB; lower it to that, or free memory"
        )
    plan = found.given.plan
    if not plan.fits:
        raise ConfigError(refusal(found, config.memory_limit, name="memory_limit"))
    del found
    release_freed()
    return config.model_copy(
        update={"kv_cache_memory": plan.kv_cache_memory, "max_num_seqs": plan.max_num_seqs}
    )


def refusal(found: Choices, limit: int, *, name: str) -> str:
    """Why what was asked for does not fit, and what would."""
    given = found.given
    return (
        f"{_given(name, limit)} does not hold {given.config.model!r} {given.words}, "
        f"which needs {mib(given.plan.least)}: {given.breakdown}; {advice(found, name=name)}"
    )


def advice(found: Choices, *, name: str) -> str:
    """What to do, as a sentence without its end."""
    best = found.instead
    if best is None:
        least = found.smallest
        return f"nothing else fits either: raise {name} to {mib(least.plan.least)} for {least.words}"
    return f"{best.words} fits, in {mib(best.plan.least)}"


def _given(name: str, limit: int) -> str:
    return f"{name} = {limit} bytes ({limit / 2**20:.0f} MiB)"
