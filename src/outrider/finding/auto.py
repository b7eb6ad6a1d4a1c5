"""`speculative_model="auto"`: the chain of drafters that a target gets where nobody names one.

Lookup stands first in it, since it costs nothing. Behind it stands the first candidate that suits the target:
`FINDERS` say what there is, and a plan, which runs the loading code, whether it can be loaded beside the
target. What then does not pay is switched off by the automatic draft length, so none is left out for being a
poor guesser.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from outrider import models
from outrider.config import LOOKUP, DrafterConfig, EngineConfig
from outrider.errors import ConfigError, OutriderError
from outrider.finding.candidate import Candidate, Finder, Sought
from outrider.finding.folders import beside, in_hub_cache
from outrider.finding.own import in_checkpoint
from outrider.finding.package import in_package
from outrider.loading import Listener, Loading, unheard
from outrider.messages import reason
from outrider.models.checkpoint import locate
from outrider.planning.choices import mib
from outrider.planning.limit import ground_of
from outrider.planning.plan import Ground, MemoryPlan, make_plan
from outrider.planning.process import free_bytes, process_bytes

logger = logging.getLogger(__name__)

FINDERS: tuple[Finder, ...] = (in_checkpoint, beside, in_hub_cache, in_package)
"""Who is asked for candidates. Of one rank, those of the first are tried first."""
TRIED = 8
"""Candidates that are tried at most: opening one with a large vocabulary takes a second."""
CONTEXT = 0.75
"""The share of a request's context that drafts have to leave, where memory for K and V is bounded."""
LIGHT = 0.05
"""The share of its target's bytes that a drafter may read for a token as it is stored. One that reads more is
quantised: at four bits it guesses nearly as well, and sooner."""
WORTH = 1.25
"""Times fewer bytes that a quantised drafter has to read."""
TOLD = 3
"""Candidates that do not fit and are told of in one line."""


@dataclass(frozen=True)
class DraftCosts:
    """What a drafter takes beside its target. memory: bytes, of all but its cache; position: bytes of its
    cache for each position of a request; read: for a token, as a share of the bytes that the target reads."""

    memory: int
    position: int
    read: float


class NoRoom(ConfigError):
    """A drafter that suits its target, and not the memory that there is."""


@dataclass(frozen=True)
class Finding:
    """A candidate, and what becomes of it.

    cost: what it takes; None where it cannot be planned. config: with which an engine is built; None where it
    does not suit the target, and `reason` says why; instead: what may be tried in its place where nothing
    else suits; lacks_room: it lacks nothing but memory.
    """

    candidate: Candidate
    cost: DraftCosts | None = None
    config: EngineConfig | None = None
    reason: str = ""
    instead: Candidate | None = None
    lacks_room: bool = False

    @property
    def quantization(self) -> str | None:
        """What the weights of the drafter become when they are loaded, if anything."""
        if self.config is None or self.config.speculative is None:
            return None
        return self.config.speculative.draft_quantization


@dataclass(frozen=True)
class Findings:
    """What was found for a target, and what was taken. quantization: what its weights become, if anything;
    skipped: candidates that do not suit the target."""

    model: str
    taken: Candidate | None = None
    quantization: str | None = None
    skipped: tuple[Finding, ...] = ()

    @property
    def without_room(self) -> list[DrafterConfig]:
        """Drafters that lack nothing but memory."""
        return [finding.candidate.drafter for finding in self.skipped if finding.lacks_room]

    def __str__(self) -> str:
        """One line."""
        if self.taken is None:
            said = f"{LOOKUP.name} alone, since no head or smaller model that suits it was found"
        else:
            bits = "" if self.quantization is None else f", as {self.quantization}"
            said = f"{LOOKUP.name}, then {self.taken.label} ({self.taken.kind} {self.taken.where}{bits})"
        more = len(self.skipped) - TOLD
        reasons = [
            f"not taken: {finding.candidate.label}: {finding.reason}" for finding in self.skipped[:TOLD]
        ]
        others = [f"and {more} more are not taken"] if more > 0 else []
        return "; ".join([f"drafters of {self.model}: {said}", *reasons, *others])


def with_found(config: EngineConfig, *, listener: Listener = unheard) -> tuple[EngineConfig, Findings | None]:
    """The configuration with the drafters that were found in place of 'auto', and what was found; the same
    and None where it does not ask for that.

    Nothing that is wrong with a candidate raises: it is left out, with a reason.
    """
    if config.speculative is None or not config.speculative.seeks:
        return config, None
    listener(Loading(f"looking for drafts for {config.model}"))
    found = Findings(config.model)
    for finding in weighed(config):
        if finding.config is not None:
            taken, quantization = finding.candidate, finding.quantization
            config, found = finding.config, replace(found, taken=taken, quantization=quantization)
            break
        found = replace(found, skipped=(*found.skipped, finding))
    else:
        config = _with(config, None)
    logger.info("%s", found)
    return config, found


def weighed(config: EngineConfig) -> Iterator[Finding]:
    """What becomes of each candidate for the target of a configuration, the best first; `TRIED` at most.

    They are to stay within `memory_limit`, or what is free.

    Nothing for a target that cannot be opened or planned: what is wrong with it is told where it is loaded.
    """
    with _unsaid():
        try:
            path = locate(config.model, config.revision)  # once: it asks the hub for one of its models
            here = config.model_copy(update={"model": str(path)})
            ground = ground_of(here, config.memory_limit or process_bytes() + free_bytes())
            sought = Sought(here, ground.target, path, ground.open)
            found = candidates(sought)
            if not found:
                return
            alone = make_plan(_with(here, None), ground)
        except OutriderError:
            return
    tried = deque(found[:TRIED])
    while tried:
        with _unsaid():
            finding = _weigh(tried.popleft(), sought, ground, alone)
        if finding.config is not None:
            finding = replace(finding, config=finding.config.model_copy(update={"model": config.model}))
        if finding.instead is not None:
            tried.append(finding.instead)
        yield finding


def candidates(sought: Sought) -> list[Candidate]:
    """All that may draft for a target, the best first, each once."""
    found = [candidate for finder in FINDERS for candidate in finder(sought)]
    once = {candidate.drafter: candidate for candidate in reversed(found)}
    return sorted((c for c in found if once[c.drafter] is c), key=lambda candidate: candidate.rank)


def _weigh(candidate: Candidate, sought: Sought, ground: Ground, alone: MemoryPlan) -> Finding:
    config = _with(sought.config, candidate)
    costs = None
    try:
        config, plan = _quantised(config, make_plan(config, ground), ground)
        costs = DraftCosts(
            memory=plan.fixed - alone.fixed,
            position=(plan.block - alone.block) // plan.block_size,
            read=plan.drafts_read / plan.read,
        )
        candidate.check(sought, plan)
        config = _with_room(config, plan, alone)
        _check_room(config, plan, alone)
    except (OutriderError, OSError) as error:
        instead, no_room = candidate.instead(error), isinstance(error, NoRoom)
        return Finding(candidate, costs, None, reason(error), instead, no_room)
    return Finding(candidate, costs, config)


def _quantised(config: EngineConfig, plan: MemoryPlan, ground: Ground) -> tuple[EngineConfig, MemoryPlan]:
    """The drafter at four bits, where that pays and nobody has said what its weights are to be."""
    assert config.speculative is not None
    if config.speculative.draft_quantization is not None or plan.drafts_read <= LIGHT * plan.read:
        return config, plan
    speculative = config.speculative.model_copy(update={"draft_quantization": "int4"})
    fewer = config.model_copy(update={"speculative": speculative})
    try:
        lighter = make_plan(fewer, ground)
    except ConfigError:  # on PyTorch
        return config, plan
    return (fewer, lighter) if lighter.drafts_read * WORTH < plan.drafts_read else (config, plan)


def _with(config: EngineConfig, candidate: Candidate | None) -> EngineConfig:
    """The configuration with lookup and this candidate as drafters."""
    assert config.speculative is not None
    changed: dict[str, Any] = {"drafters": (LOOKUP,)}
    if candidate is None:
        changed["draft_quantization"] = None  # which is for the weights of a draft
    else:
        changed = {"drafters": (LOOKUP, candidate.drafter), **candidate.speculative}
    return config.model_copy(update={"speculative": config.speculative.model_copy(update=changed)})


def _check_room(config: EngineConfig, plan: MemoryPlan, alone: MemoryPlan) -> None:
    """Raise NoRoom for drafts that do not fit, or cost the target too much of the context that it has
    alone."""
    if not plan.fits:
        raise NoRoom(f"it needs {mib(plan.least)} with the target, and there are {mib(plan.limit)}")
    told = config.max_model_len is not None and config.memory_limit is None
    lacking = told and plan.cache_of_one > config.kv_cache_memory
    if lacking or plan.context < CONTEXT * alone.context:
        raise NoRoom(
            "its cache beside the target's would leave requests too little context; raise kv_cache_memory, "
            "or lower max_model_len"
        )


def _with_room(config: EngineConfig, plan: MemoryPlan, alone: MemoryPlan) -> EngineConfig:
    """With memory for the drafter's K and V in addition to what the target gets, where nobody said how much:
    no request has less context than without drafts."""
    if config.memory_limit is not None or "kv_cache_memory" in config.model_fields_set:
        return config
    size = config.kv_cache_memory * plan.cache_block // alone.cache_block
    return config.model_copy(update={"kv_cache_memory": size})


@contextmanager
def _unsaid() -> Iterator[None]:
    """Without warnings about models: candidates are not loaded, and the target's are said when it is."""
    said = logging.getLogger(models.__name__)
    level = said.level
    said.setLevel(logging.ERROR)
    try:
        yield
    finally:
        said.setLevel(level)
