"""Outrider: lossless speculative decoding for large language models."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from outrider.errors import ConfigError, ModelError, OutriderError, RequestError

if TYPE_CHECKING:
    from outrider.llm import LLM, RequestsFailed
    from outrider.outputs import CompletionOutput, Increment, RequestOutput, SpeculationStats
    from outrider.params import SamplingParams, StructuredOutputs

__version__ = version("outrider")

__all__ = [
    "LLM",
    "CompletionOutput",
    "ConfigError",
    "Increment",
    "ModelError",
    "OutriderError",
    "RequestError",
    "RequestOutput",
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
            for module in ("outrider.params", "outrider.outputs", "outrider.llm"):
                if hasattr(import_module(module), name):
                    return getattr(import_module(module), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
