"""Outrider: lossless speculative decoding for large language models."""

from importlib.metadata import version

from outrider.errors import ConfigError, ModelError, OutriderError, RequestError
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
