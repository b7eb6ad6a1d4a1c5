"""What scripts import from vLLM's modules is there, and is Outrider's."""

from __future__ import annotations

import dataclasses
from importlib import import_module
from pkgutil import walk_packages
from typing import Any

import pytest

import outrider
from outrider import LLM, ConfigError, EngineArgs, SamplingParams
from outrider.compat import vllm
from outrider.compat.vllm.lora.request import LoRARequest
from outrider.compat.vllm.sampling_params import GuidedDecodingParams
from outrider.compat.vllm.utils import FlexibleArgumentParser, random_uuid
from outrider.engine_args import HINTS
from outrider.options import Options
from outrider.vllm_arguments import OF_LLM

MODULES = {
    "": ["LLM", "SamplingParams", "EngineArgs", "AsyncEngineArgs", "LLMEngine", "AsyncLLMEngine",
         "TokensPrompt", "TextPrompt", "PromptType", "RequestOutput", "CompletionOutput"],
    "sampling_params": ["SamplingParams", "StructuredOutputsParams", "GuidedDecodingParams",
                        "BeamSearchParams", "RequestOutputKind"],
    "outputs": ["RequestOutput", "CompletionOutput"],
    "logprobs": ["Logprob"],
    "sequence": ["Logprob", "RequestMetrics"],
    "beam_search": ["BeamSearchOutput", "BeamSearchSequence"],
    "inputs": ["TokensPrompt", "TextPrompt", "PromptType"],
    "distributed": ["cleanup_dist_env_and_memory"],
    "entrypoints.llm": ["LLM"],
    "engine.arg_utils": ["EngineArgs", "AsyncEngineArgs"],
    "engine.llm_engine": ["LLMEngine"],
    "engine.async_llm_engine": ["AsyncLLMEngine"],
    "v1.engine.async_llm": ["AsyncLLM"],
    "v1.engine.llm_engine": ["LLMEngine"],
    "v1.metrics.reader": ["Counter", "Gauge", "Histogram", "Vector", "Metric"],
    "lora.request": ["LoRARequest"],
    "usage.usage_lib": ["UsageContext"],
    "utils": ["FlexibleArgumentParser", "random_uuid"],
    "utils.argparse_utils": ["FlexibleArgumentParser"],
}  # fmt: skip


@pytest.mark.parametrize("module", MODULES)
def test_names(module: str) -> None:
    found = import_module(f"outrider.compat.vllm.{module}".rstrip("."))
    assert set(MODULES[module]) <= set(found.__all__)
    assert all(hasattr(found, name) for name in found.__all__)


def test_every_module_is_listed_above() -> None:
    prefix = f"{vllm.__name__}."
    there = {m.name.removeprefix(prefix) for m in walk_packages(vllm.__path__, prefix) if not m.ispkg}
    assert there <= MODULES.keys()


def test_one_class_stands_behind_each_name() -> None:
    assert vllm.LLM is LLM
    assert vllm.AsyncLLMEngine is outrider.AsyncLLM
    assert vllm.AsyncEngineArgs is EngineArgs
    assert GuidedDecodingParams is outrider.StructuredOutputs


def test_adapters_are_refused_by_name(target: str) -> None:
    with pytest.raises(ConfigError, match=r"^lora_request = 'sql': adapters are not loaded; merge it"):
        LoRARequest("sql", 1, "path")
    adapter: Any = object()
    with pytest.raises(ConfigError, match=r"^lora_request = "):
        LLM(target, device="cpu").generate("the", SamplingParams(max_tokens=1), lora_request=adapter)


def test_engine_args_have_every_option_of_llm() -> None:
    names = [each.name for each in dataclasses.fields(EngineArgs)]
    assert names == ["model", *HINTS]
    assert set(HINTS) == {*Options.__annotations__, *OF_LLM}
    args = EngineArgs("tiny", max_model_len=64)
    args.seed = 3  # type: ignore[attr-defined]
    assert args.given == {"model": "tiny", "max_model_len": 64, "seed": 3}
    assert dataclasses.asdict(args)["gpu_memory_utilization"] is None
    assert repr(args) == "EngineArgs(model='tiny', max_model_len=64, seed=3)"


def test_a_command_line_gives_engine_args(target: str) -> None:
    parser = EngineArgs.add_cli_args(FlexibleArgumentParser())
    line = ["--model", target, "--max_model_len=64", "--no-enable-prefix-caching", "--device", "cpu",
            "--speculative-config", '{"method": "ngram"}', "--tensor-parallel-size", "1"]  # fmt: skip
    args = parser.parse_args(line)
    assert (args.max_model_len, args.enable_prefix_caching, args.tensor_parallel_size) == (64, False, 1)
    with pytest.warns(UserWarning, match="^tensor_parallel_size has no effect"):
        llm = LLM(**vars(args))
    assert llm.engine.max_model_len == 64
    assert llm.config.speculative is not None
    assert EngineArgs.from_cli_args(args).given.keys() == {
        "model", "device", "max_model_len", "enable_prefix_caching", "speculative_config",
        "tensor_parallel_size",
    }  # fmt: skip


def test_ids_of_requests() -> None:
    assert random_uuid() != random_uuid()
    assert len(random_uuid()) == 32
