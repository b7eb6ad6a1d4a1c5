"""Which engine computes behind `LLM` and the server, by the option `engine`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from outrider.cache.pages import release_freed
from outrider.config import OWN_ENGINE, EngineConfig, resolve
from outrider.engine.build import build_engine
from outrider.engine.seam import StepEngine
from outrider.engine.watcher import Watcher
from outrider.errors import ConfigError
from outrider.finding.auto import Findings, with_found
from outrider.loading import Listener
from outrider.messages import shown
from outrider.planning.limit import within_limit


class LoadedEngine(NamedTuple):
    """An engine, and what it was built from: an `EngineConfig`, or what another engine has in its place.
    found: the drafters that 'auto' came to."""

    engine: StepEngine
    config: Any
    found: Findings | None = None


class EngineLoader(Protocol):
    """Builds an engine."""

    def __call__(
        self,
        model: str,
        options: Mapping[str, Any],
        *,
        listener: Listener,
        beside: Callable[[EngineConfig], int] | None,
        watchers: Sequence[Watcher],
    ) -> LoadedEngine:
        """Build it of a model and the options of `LLM` that are not None. listener, beside: as `LLM` has
        them. Raises ConfigError and ModelError, with nothing half-built."""


def _load_own(
    model: str,
    options: Mapping[str, Any],
    *,
    listener: Listener,
    beside: Callable[[EngineConfig], int] | None,
    watchers: Sequence[Watcher],
) -> LoadedEngine:
    config, found = with_found(resolve(model, **options), listener=listener)
    config = within_limit(config, beside)
    engine = build_engine(config, listener=listener, watchers=watchers)
    release_freed()  # by tokenizers and checkpoints, before the cache takes its memory
    return LoadedEngine(engine, config, found)


def _load_vllm(
    model: str,
    options: Mapping[str, Any],
    *,
    listener: Listener,
    beside: Callable[[EngineConfig], int] | None,
    watchers: Sequence[Watcher],
) -> LoadedEngine:
    from outrider.cluster.vllm.build import build_vllm
    from outrider.cluster.vllm.config import resolve_vllm

    if beside is not None:
        raise ConfigError("learning beside engine = 'vllm': vLLM's heads learn nothing; leave it out")
    config = resolve_vllm(model, **options)
    return LoadedEngine(build_vllm(config, listener=listener, watchers=watchers), config)


ENGINES: Mapping[str, EngineLoader] = MappingProxyType({OWN_ENGINE: _load_own, "vllm": _load_vllm})


def load_of(engine: str) -> EngineLoader:
    """What builds the engine of this name. Raises ConfigError."""
    if engine not in ENGINES:
        raise ConfigError(f"engine = {shown(engine)}: give {' or '.join(map(repr, ENGINES))}", "engine")
    return ENGINES[engine]
