"""Having an engine's head learn."""

from __future__ import annotations

from outrider.adapting.adapter import Adapter, BetweenSteps
from outrider.adapting.child import TrainingProcess
from outrider.adapting.messages import Setup
from outrider.adapting.settings import AdaptConfig
from outrider.drafting.head import HeadDrafter
from outrider.engine.engine import Engine
from outrider.errors import ConfigError
from outrider.machine.cores import default_threads
from outrider.models.eagle3 import Eagle3
from outrider.models.head_checkpoint import HeadCheckpoint, locate_head


def adapter_of(engine: Engine, adapt: AdaptConfig, between_steps: BetweenSteps) -> Adapter:
    """Start a training process for the head of an engine that runs nothing yet.

    Raises ConfigError where there is no head, or one that cannot be trained, and for an engine on PyTorch.
    """
    if engine.facts.kernels is None:
        raise ConfigError(
            f"--adapt is for the native CPU kernels; this engine uses PyTorch on {engine.facts.device}"
        )
    config = engine.config
    drafter, name = _head_of(engine)
    checkpoint = HeadCheckpoint(locate_head(name))
    assert engine.facts.threads is not None
    threads = adapt.cores or engine.facts.threads
    trainer = TrainingProcess(Setup(config.model, config.revision, checkpoint.path, threads, adapt))
    return Adapter(engine, drafter, checkpoint, trainer, between_steps, adapt)


def threads_beside(adapt: AdaptConfig) -> int | None:
    """The threads that the kernels have where learning has cores of its own; None: as many as ever.

    Raises ConfigError where no core is left.
    """
    if not adapt.cores:
        return None
    there = default_threads()
    if adapt.cores >= there:
        raise ConfigError(
            f"--adapt-cores = {adapt.cores} leaves none of the {there} cores to serve with; give fewer, or 0 "
            "to learn in idle time"
        )
    return there - adapt.cores


def _head_of(engine: Engine) -> tuple[HeadDrafter, str]:
    """The first head of the chain, and its name."""
    speculative = engine.config.speculative
    named = () if speculative is None else speculative.drafters
    for drafter, one in zip(engine.drafters.drafters[1:], named, strict=True):
        if isinstance(drafter, HeadDrafter) and isinstance(drafter.head, Eagle3):
            return drafter, one.model or ""
    drafters = ", ".join(repr(one.name) for one in named) or "none"
    raise ConfigError(
        f"--adapt: no drafter of this server is a head that could learn ({drafters}); name one with "
        "--speculative-model, or make one with `outrider distill`"
    )
