"""How requests are sampled, by vLLM's names."""

from outrider.beam_search import BeamSearchParams
from outrider.params import RequestOutputKind, SamplingParams
from outrider.params import StructuredOutputs as GuidedDecodingParams
from outrider.params import StructuredOutputs as StructuredOutputsParams

__all__ = [
    "BeamSearchParams",
    "GuidedDecodingParams",
    "RequestOutputKind",
    "SamplingParams",
    "StructuredOutputsParams",
]
