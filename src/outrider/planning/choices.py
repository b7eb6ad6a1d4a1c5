"""The formats and drafters that there are to choose from, each with its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.config import EngineConfig
from outrider.engine.backend import takes_formats
from outrider.errors import ConfigError
from outrider.planning.allowed import in_words
from outrider.planning.plan import Ground, MemoryPlan, make_plan
from outrider.speculative_config import LOOKUP, DrafterConfig, SpeculativeConfig

OF_DRAFTS = ("draft_quantization", "draft_vocab_size", "draft_vocabulary")
"""Options of speculation that only some drafters take."""


@dataclass(frozen=True)
class PlanChoice:
    """A format and a drafter. options: those of `LLM` that mean it."""

    format: str
    drafter: str
    options: tuple[tuple[str, Any], ...]
    config: EngineConfig
    plan: MemoryPlan

    @property
    def words(self) -> str:
        """What it is, and the options as they are written in Python."""
        options = ", ".join(f"{name}={value!r}" for name, value in self.options)
        return f"{self.format} with drafter {self.drafter}" + (f" ({options})" if options else "")

    @property
    def breakdown(self) -> str:
        """What is needed, part by part."""
        plan = self.plan
        parts = {
            "runtime": plan.runtime,
            "learning": plan.beside,
            "target": plan.target,
            "draft": plan.drafts,
            "activations": plan.activations,
            f"K/V of {plan.wanted} positions": plan.least_cache,
        }
        if plan.loading > plan.fixed + plan.least_cache:
            models = plan.loading - plan.runtime - plan.beside
            parts = {"runtime": plan.runtime, "learning": plan.beside}
            parts["target and draft while they are loaded"] = models
        parts["held back"] = plan.least - max(plan.loading, plan.fixed + plan.least_cache)
        return in_words(parts)


@dataclass(frozen=True)
class Choices:
    """stored: the type of the linear layers in the file; given: what the configuration asks for; all: it
    among the others, formats that lose least first, and for each the drafter that was asked for first."""

    stored: str
    given: PlanChoice
    all: tuple[PlanChoice, ...]

    @property
    def recommended(self) -> PlanChoice | None:
        """The one that fits and loses least; None where none fits."""
        return next((choice for choice in self.all if choice.plan.fits), None)

    @property
    def fastest(self) -> PlanChoice | None:
        """The one that fits and reads least for a token."""
        return min((c for c in self.all if c.plan.fits), key=lambda c: c.plan.read, default=None)

    @property
    def instead(self) -> PlanChoice | None:
        """The nearest to what was asked for that fits: with the same drafter, if there is one."""
        fitting = [choice for choice in self.all if choice.plan.fits]
        same = [choice for choice in fitting if choice.drafter == self.given.drafter]
        return next(iter(same or fitting), None)

    @property
    def smallest(self) -> PlanChoice:
        """The one that needs least."""
        return min(self.all, key=lambda choice: choice.plan.least)


def choices(config: EngineConfig, ground: Ground, also: Sequence[DrafterConfig] = ()) -> Choices:
    """The plans of all formats and drafters, and of those in `also`, each alone. Raises ConfigError and
    ModelError, as building would."""
    stored = ground.target.stored_as
    given: PlanChoice | None = None
    found = []
    for format, of_format in _formats(config, stored):
        for drafter, speculative in _drafters(config, also):
            changed: dict[str, Any] = {**of_format, "speculative": speculative}
            asked = config.model_copy(update=changed)
            as_given = all(getattr(config, name) == value for name, value in changed.items())
            try:
                plan = make_plan(asked, ground)
            except ConfigError:  # the engine would refuse it too, as a target of 4 bits that drafts at 4
                if as_given:
                    raise
                continue
            options = {name: value for name, value in of_format.items() if value not in (None, "auto")}
            found.append(PlanChoice(format, drafter, (*options.items(), *_options(speculative)), asked, plan))
            given = found[-1] if as_given else given
    assert given is not None  # it is among the formats and drafters
    return Choices(stored, given, tuple(found))


def _formats(config: EngineConfig, stored: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and options, those that lose least first; what the configuration asks for is one of them."""
    formats = takes_formats(config.model_copy(update={"dtype": "auto"}))
    yield "as stored" if formats else "auto", {"dtype": "auto", "quantization": None}
    if config.dtype not in ("auto", "bfloat16"):
        yield config.dtype, {"dtype": config.dtype, "quantization": None}
    if stored != "BF16" or config.dtype == "bfloat16":
        yield "bfloat16", {"dtype": "bfloat16", "quantization": None}
    if formats:
        for name in ("int8", "int4"):
            yield name, {"dtype": "auto", "quantization": name}


def _drafters(
    config: EngineConfig, also: Sequence[DrafterConfig]
) -> Iterator[tuple[str, SpeculativeConfig | None]]:
    """Names and options; what was asked for or found, and then what else there is."""
    given = config.speculative
    if given is not None:
        yield ", ".join(drafter.name for drafter in given.drafters), given
    like = {} if given is None else given.model_dump(exclude={"drafters", *OF_DRAFTS})
    for drafter in (*also, LOOKUP):
        if given is None or given.drafters != (drafter,):
            yield drafter.name, SpeculativeConfig(drafters=(drafter,), **like)
    yield "none", None


def _options(speculative: SpeculativeConfig | None) -> Iterator[tuple[str, Any]]:
    if speculative is None:
        return
    names = [drafter.name for drafter in speculative.drafters]
    yield "speculative_model", names[0] if len(names) == 1 else names
    for name in OF_DRAFTS:
        if (value := getattr(speculative, name)) != SpeculativeConfig.model_fields[name].default:
            yield name, value
