"""The names that scripts import from vLLM: in place of `vllm` they import `outrider.compat.vllm`.

Each module has the path that it has in vLLM, and what is in it are classes of Outrider.
"""

from outrider.async_llm import AsyncLLM as AsyncLLMEngine
from outrider.compat.vllm.inputs import PromptType, TextPrompt, TokensPrompt
from outrider.engine_args import EngineArgs
from outrider.engine_args import EngineArgs as AsyncEngineArgs
from outrider.llm import LLM
from outrider.llm_engine import LLMEngine
from outrider.outputs import CompletionOutput, RequestOutput
from outrider.params import SamplingParams

__all__ = [
    "LLM",
    "AsyncEngineArgs",
    "AsyncLLMEngine",
    "CompletionOutput",
    "EngineArgs",
    "LLMEngine",
    "PromptType",
    "RequestOutput",
    "SamplingParams",
    "TextPrompt",
    "TokensPrompt",
]
