"""Outrider: lossless speculative decoding for large language models."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from outrider.errors import ConfigError, ModelError, OutriderError, RequestError

if TYPE_CHECKING:
    from outrider.async_llm import AsyncLLM
    from outrider.batch import RequestsFailed
    from outrider.beam_search import BeamSearchOutput, BeamSearchParams, BeamSearchSequence
    from outrider.engine_args import EngineArgs
    from outrider.llm import LLM
    from outrider.llm_engine import LLMEngine
    from outrider.outputs import CompletionOutput, Increment, RequestOutput, SpeculationStats
    from outrider.params import RequestOutputKind, SamplingParams, StructuredOutputs

__version__ = version("outrider")

MODULES = (
    "outrider.params",
    "outrider.outputs",
    "outrider.beam_search",
    "outrider.engine_args",
    "outrider.batch",
    "outrider.llm",
    "outrider.llm_engine",
    "outrider.async_llm",
)
"""Where the names of the package are looked for, in this order: what is imported soonest comes first."""

__all__ = [
    "LLM",
    "AsyncLLM",
    "BeamSearchOutput",
    "BeamSearchParams",
    "BeamSearchSequence",
    "CompletionOutput",
    "ConfigError",
    "EngineArgs",
    "Increment",
    "LLMEngine",
    "ModelError",
    "OutriderError",
    "RequestError",
    "RequestOutput",
    "RequestOutputKind",
    "RequestsFailed",
    "SamplingParams",
    "SpeculationStats",
    "StructuredOutputs",
]

if not TYPE_CHECKING:  # where a type checker would take any name at all for one of the package

    def __getattr__(name: str) -> Any:
        """What takes longer to import comes when it is asked for: the command can be interrupted
        meanwhile."""
        if name in __all__:
            for module in MODULES:
                if hasattr(import_module(module), name):
                    return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
