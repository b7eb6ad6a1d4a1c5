"""The parts of vLLM that are used, in this process: a model that says the same whatever it is asked."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, make_dataclass
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from outrider.cluster.vllm.build import MODULES

VOCAB = 275
ARGUMENTS = (
    "model", "dtype", "kv_cache_dtype", "scheduling_policy", "enable_prefix_caching", "seed", "tokenizer",
    "tensor_parallel_size", "pipeline_parallel_size", "distributed_executor_backend", "max_model_len",
    "max_num_seqs", "max_num_batched_tokens", "kv_cache_memory_bytes", "block_size", "quantization",
    "revision", "gpu_memory_utilization", "speculative_config", "per_request_spec_decode_metrics",
    "generation_config",
)  # fmt: skip
PLATFORM = SimpleNamespace(is_cpu=lambda: True, get_device_total_memory=lambda: 2**34)
EngineArgs: Any = make_dataclass("EngineArgs", [(name, Any, field(default=None)) for name in ARGUMENTS])


class VLLMValidationError(Exception):
    pass


class EngineDeadError(Exception):
    pass


class SamplingParams(SimpleNamespace):
    def verify(self, model: Any, speculative: Any, structured: Any, tokenizer: Any) -> None:
        if speculative is not None and (self.min_p or self.logit_bias):
            raise VLLMValidationError("min_p and logit_bias are not supported with speculative decoding")


@dataclass
class Running:
    """A request of vLLM's: of one sequence."""

    id: str
    params: Any
    said: int = 0
    drafts: list[tuple[int, int]] = field(default_factory=list)


class LLMEngine:
    """Each request says the tokens of `says`, over and over, to its end.

    With a draft length K, step number s of a sequence verifies K tokens, of which s modulo K + 1 stand.
    """

    says: Sequence[int] = (30, 31, 32, 33)

    def __init__(self, arguments: Any, stat_loggers: Sequence[Callable[[Any, int], Any]]) -> None:
        self.arguments = arguments
        self.recorder = stat_loggers[0](None, 0)
        drafting = arguments.speculative_config
        self.length = None if drafting is None else drafting["num_speculative_tokens"]
        self.vllm_config = SimpleNamespace(
            model_config=SimpleNamespace(
                dtype="torch.bfloat16",
                quantization=arguments.quantization,
                max_model_len=arguments.max_model_len or 1024,
                get_vocab_size=lambda: VOCAB,
                get_hidden_size=lambda: 48,
            ),
            parallel_config=arguments,
            device_config=SimpleNamespace(device_type="cpu"),
            scheduler_config=SimpleNamespace(max_num_seqs=arguments.max_num_seqs or 256),
            cache_config=SimpleNamespace(block_size=16),
            speculative_config=None
            if self.length is None
            else SimpleNamespace(num_speculative_tokens=self.length),
            structured_outputs_config=None,
        )
        self.running: dict[str, Running] = {}
        self.added: list[tuple[str, Any, Any, int]] = []
        self.aborted: list[str] = []
        self.dead = False
        self.closed = False
        self.engine_core = SimpleNamespace(shutdown=self._close)

    @classmethod
    def from_engine_args(cls, arguments: Any, *, stat_loggers: Sequence[Any]) -> LLMEngine:
        return cls(arguments, stat_loggers)

    def get_tokenizer(self) -> None:
        return None

    def add_request(self, request_id: str, prompt: Any, params: Any, *, priority: int) -> None:
        self.added.append((request_id, prompt, params, priority))
        self.running[request_id] = Running(request_id, params)

    def abort_request(self, ids: Sequence[str]) -> None:
        self.aborted += ids
        for each in ids:
            self.running.pop(each, None)

    def reset_prefix_cache(self) -> bool:
        return True

    def step(self) -> list[Any]:
        """What each gains, and, as vLLM's stat loggers hear it, what was drafted for all of them together."""
        if self.dead:
            raise EngineDeadError
        outputs, verified = [], []
        for request in [*self.running.values()]:
            gained = 1
            if request.said and self.length is not None:
                request.drafts.append((self.length, len(request.drafts) % (self.length + 1)))
                verified.append(request.drafts[-1])
                gained += request.drafts[-1][1]
            outputs.append(self._told(request, gained))
        self.recorder.record(
            SimpleNamespace(
                num_running_reqs=len(self.running),
                num_waiting_reqs=1,
                num_skipped_waiting_reqs=1,
                kv_cache_usage=0.5,
                spec_decoding_stats=SimpleNamespace(
                    num_drafts=len(verified), num_draft_tokens=sum(drafted for drafted, _ in verified)
                ),
            ),
            SimpleNamespace(num_preempted_reqs=0),
        )
        return outputs

    def _told(self, request: Running, gained: int) -> Any:
        params, first = request.params, not request.said
        tokens: list[int] = []
        ended = None
        while len(tokens) < gained and ended is None:
            tokens.append(self.says[request.said % len(self.says)])
            request.said += 1
            if tokens[-1] in params.stop_token_ids and request.said > params.min_tokens:
                ended = "stop"
            elif request.said == params.max_tokens:
                ended = "length"
        if ended is not None:
            del self.running[request.id]
        exact = SimpleNamespace(
            per_step_drafted=[drafted for drafted, _ in request.drafts],
            per_step_accepted=[accepted for _, accepted in request.drafts],
        )
        completion = SimpleNamespace(
            token_ids=tokens,
            logprobs=None
            if params.logprobs is None
            else [{token: SimpleNamespace(logprob=-0.5, rank=1)} for token in tokens],
            finish_reason=ended,
            spec_decode_metrics=exact if ended is not None and self.length is not None else None,
        )
        prompt = next(prompt for name, prompt, _, _ in self.added if name == request.id)["prompt_token_ids"]
        of_prompt = [None, *({token: SimpleNamespace(logprob=-1.0, rank=2)} for token in prompt[1:])]
        return SimpleNamespace(
            request_id=request.id,
            outputs=[completion],
            prompt_logprobs=of_prompt if first and params.prompt_logprobs is not None else None,
            num_cached_tokens=3,
            metrics=SimpleNamespace(queued_ts=5.0, scheduled_ts=5.25),
        )

    def _close(self) -> None:
        self.closed = True


def install(patch: pytest.MonkeyPatch) -> None:
    """Have `import vllm` find it."""
    parts: dict[str, dict[str, Any]] = {
        "vllm": {"LLMEngine": LLMEngine, "EngineArgs": EngineArgs},
        "vllm.engine": {},
        "vllm.v1": {},
        "vllm.v1.engine": {},
        "vllm.engine.arg_utils": {"EngineArgs": EngineArgs},
        "vllm.platforms": {"current_platform": PLATFORM},
        "vllm.exceptions": {"VLLMValidationError": VLLMValidationError},
        "vllm.sampling_params": {
            "SamplingParams": SamplingParams,
            "StructuredOutputsParams": SimpleNamespace,
            "RequestOutputKind": SimpleNamespace(DELTA="delta"),
        },
        "vllm.v1.engine.exceptions": {"EngineDeadError": EngineDeadError},
    }
    assert parts.keys() >= {*MODULES}
    # Where vLLM is installed, what is tried out of it is not its own.
    patch.setitem(sys.modules, "vllm.utils.cpu_triton_utils", None)
    modules = {name: ModuleType(name) for name in parts}
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, None)
        vars(module).update(parts[name])
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(modules[parent], last, module)
        patch.setitem(sys.modules, name, module)
