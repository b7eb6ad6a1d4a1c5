"""`speculative_model="auto"`: the chain of drafters that a target gets where nobody names one.

Lookup stands first in it, since it costs nothing. Behind it stands the first candidate that suits the target,
and behind a head the first draft model: `FINDERS` say what there is, and a plan, which runs the loading code,
whether it can be loaded beside the target. What then does not pay is switched off by the automatic draft
length, for each request, so none is left out for being a poor guesser.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from outrider import models
from outrider.config import EngineConfig
from outrider.drafting.self_draft import WORTH
from outrider.errors import ConfigError, OutriderError
from outrider.finding.candidate import Candidate, Finder, Sought
from outrider.finding.folders import beside, in_hub_cache
from outrider.finding.own import in_checkpoint
from outrider.finding.package import in_package
from outrider.loading import Listener, Loading, unheard
from outrider.messages import reason
from outrider.models.checkpoint import locate
from outrider.planning.allowed import mib
from outrider.planning.limit import ground_of, limit_here
from outrider.planning.plan import Ground, MemoryPlan, make_plan
from outrider.speculative_config import LOOKUP, DrafterConfig, SpeculativeConfig

logger = logging.getLogger(__name__)

FINDERS: tuple[Finder, ...] = (in_checkpoint, beside, in_hub_cache, in_package)
"""Who is asked for candidates. Of one rank, those of the first are tried first."""
TRIED = 8
"""Candidates that are tried at most: opening one with a large vocabulary takes a second."""
CONTEXT = 0.75
"""The share of a request's context that drafts have to leave, where memory for K and V is bounded."""
LIGHT = 0.05
"""The share of its target's bytes that a drafter may read for a token as it is stored. One that reads more is
made lighter, since it then guesses nearly as well, and sooner."""
LIGHTER: Sequence[tuple[str, Any]] = (("draft_quantization", "int4"), ("draft_vocab_size", 2**15))
"""How."""
TOLD = 3
"""Candidates that do not fit and are told of in one line."""


@dataclass(frozen=True)
class DraftCosts:
    """What a drafter takes beside its target, and beside those before it in the chain.

    weights: bytes; memory: of all but its cache, with so many requests at a time; position: bytes of its
    cache for each position of a request; read: for a token, as a share of the bytes that the target reads.
    """

    weights: int
    memory: int
    requests: int
    position: int
    read: float

    @classmethod
    def between(cls, before: MemoryPlan, plan: MemoryPlan) -> DraftCosts:
        """What a plan has more than the one without the drafter."""
        return cls(
            weights=plan.drafts - before.drafts,
            memory=plan.fixed - before.fixed,
            requests=plan.max_num_seqs,
            position=(plan.block - before.block) // plan.block_size,
            read=(plan.drafts_read - before.drafts_read) / plan.read,
        )


class NoRoom(ConfigError):
    """A drafter that suits its target, and not the memory that there is."""


@dataclass(frozen=True)
class Finding:
    """A candidate, and what becomes of it.

    cost: what it takes; None where it cannot be planned; of_one: the same where one request runs at a time.
    plan, config: with which an engine is built, of the drafters before it as well; None where it does not
    suit the target, and `reason` says why; instead: what may be tried in its place where nothing else suits;
    lacks_room: it lacks nothing but memory. taken: it has a place in the chain.
    """

    candidate: Candidate
    cost: DraftCosts | None = None
    of_one: DraftCosts | None = None
    plan: MemoryPlan | None = None
    config: EngineConfig | None = None
    reason: str = ""
    instead: Candidate | None = None
    lacks_room: bool = False
    taken: bool = False

    @property
    def quantization(self) -> str | None:
        """What the weights of the drafter become when they are loaded, if anything."""
        return None if self._speculative is None else self._speculative.draft_quantization

    @property
    def vocab_size(self) -> int | None:
        """For how many of the first tokens it has outputs, if not for all."""
        return None if self._speculative is None else self._speculative.draft_vocab_size

    @property
    def _speculative(self) -> SpeculativeConfig | None:
        return None if self.config is None else self.config.speculative


@dataclass(frozen=True)
class Findings:
    """What was found for a target, and what was taken. quantization, vocab_size: as in `Finding`; skipped:
    candidates that do not suit the target."""

    model: str
    taken: tuple[Candidate, ...] = ()
    quantization: str | None = None
    vocab_size: int | None = None
    skipped: tuple[Finding, ...] = ()

    @property
    def without_room(self) -> list[DrafterConfig]:
        """Drafters that lack nothing but memory."""
        return [finding.candidate.drafter for finding in self.skipped if finding.lacks_room]

    def __str__(self) -> str:
        """One line."""
        said = f"{LOOKUP.name} alone, since no head or smaller model that suits it was found"
        if self.taken:
            each = [f"then {one.label} ({one.kind} {one.where})" for one in self.taken]
            said = ", ".join([LOOKUP.name, *each])
        if self.quantization is not None:
            said += f", as {self.quantization}"
        if self.vocab_size is not None:
            said += f", of {self.vocab_size} tokens"
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
    config, sought = _with(config, ()), config
    for finding in weighed(sought):
        if finding.config is not None:
            config, taken = finding.config, (*found.taken, finding.candidate)
            found = replace(
                found, taken=taken, quantization=finding.quantization, vocab_size=finding.vocab_size
            )
        else:
            found = replace(found, skipped=(*found.skipped, finding))
    logger.info("%s", found)
    return config, found


def weighed(config: EngineConfig, *, every: bool = False) -> Iterator[Finding]:
    """What becomes of each candidate for the target of a configuration, the best first; `TRIED` at most.

    They are to stay within `memory_limit`, or what is free. every: those too for which there is no place any
    more in the chain, as if they were taken alone; and what each takes for one request at a time.

    Nothing for a target that cannot be opened or planned: what is wrong with it is told where it is loaded.
    """
    with _unsaid():
        try:
            path = locate(config.model, config.revision)  # once: it asks the hub for one of its models
            here = config.model_copy(update={"model": str(path)})
            ground = ground_of(here, limit_here(here))
            sought = Sought(here, ground.target, path, ground.open)
            found = candidates(sought)
            if not found:
                return
            weighing = _Weighing(sought, ground, make_plan(_with(here, ()), ground), every)
        except OutriderError:
            return
    tried, taken = deque(found[:TRIED]), list[Finding]()
    while tried:
        candidate = tried.popleft()
        fits = candidate.goes_behind([finding.candidate for finding in taken], sought)
        if not (fits or every):
            continue
        with _unsaid():
            finding = weighing.weigh(candidate, taken if fits else ())
        if finding.config is not None:
            named = finding.config.model_copy(update={"model": config.model})
            finding = replace(finding, config=named, taken=fits)
            if fits:
                taken.append(finding)
        if finding.instead is not None:
            tried.append(finding.instead)
        yield finding


def candidates(sought: Sought) -> list[Candidate]:
    """All that may draft for a target, the best first, each once."""
    found = [candidate for finder in FINDERS for candidate in finder(sought)]
    once = {candidate.drafter: candidate for candidate in reversed(found)}
    return sorted((c for c in found if once[c.drafter] is c), key=lambda candidate: candidate.rank)


@dataclass(frozen=True)
class _Weighing:
    """What candidates are weighed by. alone: the plan of the target with lookup; of_one: whether it is told
    what each takes for one request at a time."""

    sought: Sought
    ground: Ground
    alone: MemoryPlan
    of_one: bool

    def weigh(self, candidate: Candidate, before: Sequence[Finding]) -> Finding:
        """What becomes of a candidate behind those that were taken before it."""
        chain = [finding.candidate for finding in before]
        config = _with(self.sought.config, (*chain, candidate))
        costs = of_one = None
        try:
            config, plan = _lighter(config, make_plan(config, self.ground), self.ground)
            costs = DraftCosts.between((before[-1].plan if before else None) or self.alone, plan)
            candidate.check(self.sought, costs.read)
            if self.of_one:
                of_one = self._of_one(config, chain)
            config = _with_room(config, plan, self.alone)
            _check_room(config, plan, self.alone)
        except (OutriderError, OSError) as error:
            instead, no_room = candidate.instead(error), isinstance(error, NoRoom)
            return Finding(
                candidate, costs, of_one, reason=reason(error), instead=instead, lacks_room=no_room
            )
        return Finding(candidate, costs, of_one, plan, config)

    def _of_one(self, config: EngineConfig, chain: Sequence[Candidate]) -> DraftCosts:
        """What the last drafter of a configuration takes behind those of the chain."""
        one = config.model_copy(update={"max_num_seqs": 1})
        before, plan = (make_plan(each, self.ground) for each in (_with(one, chain), one))
        return DraftCosts.between(before, plan)


def _lighter(config: EngineConfig, plan: MemoryPlan, ground: Ground) -> tuple[EngineConfig, MemoryPlan]:
    """The drafters with what of `LIGHTER` pays, where nobody has said it."""
    for name, value in LIGHTER:
        assert config.speculative is not None
        if getattr(config.speculative, name) is not None or plan.drafts_read <= LIGHT * plan.read:
            continue
        speculative = config.speculative.model_copy(update={name: value})
        changed = config.model_copy(update={"speculative": speculative})
        try:
            less = make_plan(changed, ground)
        except ConfigError:  # on PyTorch
            continue
        if less.drafts_read * WORTH < plan.drafts_read:
            config, plan = changed, less
    return config, plan


def _with(config: EngineConfig, chain: Sequence[Candidate]) -> EngineConfig:
    """The configuration with lookup and these candidates as drafters."""
    assert config.speculative is not None
    changed: dict[str, Any] = {"drafters": (LOOKUP, *(candidate.drafter for candidate in chain))}
    for candidate in chain:
        changed |= candidate.speculative
    if not chain:
        changed |= {name: None for name, _ in LIGHTER}  # which are for the weights of a draft
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
