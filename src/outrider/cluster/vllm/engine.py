"""vLLM behind the verbs of our engine: tokens in, tokens out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import count
from threading import Event
from typing import TYPE_CHECKING, Any

from outrider.cluster.vllm.config import VllmConfig
from outrider.cluster.vllm.faults import samples_beside_drafts
from outrider.cluster.vllm.outputs import VllmRequest, VllmSequence, allotted
from outrider.cluster.vllm.parameters import arguments_of, checked, structure_of
from outrider.cluster.vllm.recorder import StepRecorder
from outrider.cluster.vllm.text import ModelText
from outrider.engine.admission import MOST_SEQUENCES, check_priority, checked_tokens
from outrider.engine.facts import NO_STEP, EngineFacts, Occupancy
from outrider.engine.generation import EngineStopped, Resumption
from outrider.engine.watcher import Watcher
from outrider.errors import ConfigError, RequestError
from outrider.faults import Faults
from outrider.formats.format import Floats
from outrider.messages import reason, shown
from outrider.models.tokenizer import Tokenizer
from outrider.outputs import FinishReason, Increment, RequestOutput
from outrider.params import SamplingParams, StructuredOutputs

if TYPE_CHECKING:
    from outrider.engine.engine import Engine

logger = logging.getLogger(__name__)


class VllmEngine:
    """A `StepEngine` over `vllm.LLMEngine`, whose scheduler, workers and kernels compute.

    vllm: the package, or what a test puts in its place. What a request returns is not promised to be the same
    with and without speculation, or in another batch: `about.exact` is False.
    """

    def __init__(
        self,
        engine: Any,
        vllm: Any,
        config: VllmConfig,
        text: ModelText,
        recorder: StepRecorder,
        *,
        watchers: Sequence[Watcher] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._vllm = vllm
        self._config = config
        self._text = text
        self._recorder = recorder
        self._now = now
        self.watchers = list(watchers)
        self.report = NO_STEP
        self.about = about_of(config, engine.vllm_config, text)
        self._draft_length = _draft_length(engine.vllm_config)
        self._samples = samples_beside_drafts(self.about.device)
        self._faults = Faults(logger)
        self._numbers = count()
        self._requests: dict[str, VllmRequest] = {}
        self._running: dict[str, tuple[VllmRequest, VllmSequence]] = {}  # by vLLM's id
        self._dead = False
        self._decode = lru_cache(maxsize=None)(lambda token: text.tokenizer.decode([token]))

    @property
    def tokenizer(self) -> Tokenizer:
        return self._text.tokenizer

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        return self._text.defaults

    @property
    def ours(self) -> Engine:
        raise ConfigError("this works with engine = 'outrider' alone, and engine = 'vllm' computes here")

    @property
    def occupancy(self) -> Occupancy:
        return self._recorder.occupancy

    @property
    def unfinished(self) -> bool:
        return bool(self._running)

    def now(self) -> float:
        return self._now()

    def prepare(
        self,
        prompt_token_ids: Sequence[int],
        params: SamplingParams,
        *,
        prompt: str | None = None,
        priority: int = 0,
        said: Sequence[Resumption] = (),
    ) -> VllmRequest:
        """A request that can be queued. Raises RequestError, and ConfigError for what vLLM has not."""
        check_priority(priority, self._config.scheduling_policy)
        if any(one.token_ids for one in said):
            raise RequestError("vLLM cannot go on with a request that broke off elsewhere; ask again")
        params = params.copied()
        checked(params, self._draft_length, samples=self._samples)
        tokens = checked_tokens(prompt_token_ids, self.about.max_model_len, self.about.vocab_size)
        if params.n > MOST_SEQUENCES:
            raise RequestError(
                f"n = {shown(params.n)}: a request can have {MOST_SEQUENCES} sequences at most"
            )
        return VllmRequest(
            str(next(self._numbers)),
            prompt,
            tokens,
            params,
            inputs=[self._inputs(params, index) for index in range(params.n)],
            tokenizer=self.tokenizer,
            priority=priority,
            now=self.now(),
        )

    def compile_grammar(self, wanted: StructuredOutputs, given_up: Event) -> None:
        """vLLM compiles grammars beside its steps."""

    def queue(self, request: VllmRequest) -> str:
        """Hand it to vLLM. Raises EngineStopped once vLLM's engine has died."""
        self._requests[request.id] = request
        try:
            for sequence, inputs in zip(request.sequences, request.inputs, strict=True):
                self._or_dead(
                    self._engine.add_request, sequence.id, request.prompt(), inputs, priority=request.priority
                )
                self._running[sequence.id] = request, sequence
        except EngineStopped:
            raise
        except Exception:
            logger.exception("vLLM did not take request %s", request.id)
            self._end(request, "error")
        return request.id

    def step(self) -> list[Increment]:
        """Take the next step of vLLM, which goes on by itself meanwhile."""
        if not self._running:
            return []
        began = self.now()
        self._recorder.speculation = None
        outputs = [each for each in self._or_dead(self._engine.step) if each.request_id in self._running]
        now = self.now()
        told = [(*self._running[output.request_id], output) for output in outputs]
        drafted = allotted(
            [len(output.outputs[0].token_ids) for output in outputs],
            [not sequence.tokens for _, sequence, _ in told],
            self._recorder.speculation,
        )
        increments = []
        for (request, sequence, output), length in zip(told, drafted, strict=True):
            increments.append(request.add(sequence, output, length, now, self._decode))
            if sequence.finish_reason is not None:
                del self._running[sequence.id]
                if output.outputs[0].finish_reason is None:  # a stop string, which vLLM knows nothing of
                    self._engine.abort_request([sequence.id])
        self.report = NO_STEP._replace(whole=now - began, preempted=self._recorder.preempted)
        self._tell(lambda watcher: watcher.stepped(self, increments))
        return increments

    def abort(self, request_id: str) -> None:
        """Stop a request; its output so far can still be taken."""
        self._end(self._requests[request_id], "abort")

    def take(self, request_id: str) -> RequestOutput:
        """The output of a request; if it has finished, it is forgotten."""
        request = self._requests[request_id]
        output = request.output()
        if request.finished:
            del self._requests[request_id]
            self._tell(lambda watcher: watcher.finished(output))
        return output

    def discard(self, request_id: str) -> None:
        """Abort and forget a request, if it is still known."""
        if request_id in self._requests:
            self.abort(request_id)
            self.take(request_id)

    def finished(self, request_id: str) -> bool:
        return self._requests[request_id].finished

    def harmed(self) -> list[str]:
        """All that run. Raises EngineStopped once vLLM's engine has died: then nothing else will run."""
        if self._dead:
            raise EngineStopped("vLLM's engine has died; its log says why")
        return [request.id for request in self._requests.values() if not request.finished]

    def embed(self, tokens: Sequence[int]) -> Floats:
        raise ConfigError("engine = 'vllm' generates text; embed with engine = 'outrider'")

    def reset_prefix_cache(self) -> bool:
        return not self.unfinished and bool(self._engine.reset_prefix_cache())

    def close(self) -> None:
        """End vLLM's processes."""
        self._engine.engine_core.shutdown()

    def _inputs(self, params: SamplingParams, index: int) -> Any:
        """vLLM's parameters of a sequence, as it finds them right for this model."""
        module, engine = self._vllm.sampling_params, self._engine
        structure = structure_of(params)
        try:
            inputs = module.SamplingParams(
                **arguments_of(params, index, self._text.ends),
                structured_outputs=None if structure is None else module.StructuredOutputsParams(**structure),
                output_kind=module.RequestOutputKind.DELTA,
            )
            config = engine.vllm_config
            inputs.verify(
                config.model_config,
                config.speculative_config,
                config.structured_outputs_config,
                engine.get_tokenizer(),
            )
        except (ValueError, self._vllm.exceptions.VLLMValidationError) as error:
            raise RequestError(f"vLLM does not take the request: {reason(error)}") from None
        return inputs

    def _end(self, request: VllmRequest, why: FinishReason) -> None:
        left = [sequence.id for sequence in request.sequences if self._running.pop(sequence.id, None)]
        if left:
            self._engine.abort_request(left)
        request.end(why, self.now())

    def _or_dead(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """What vLLM answers. Raises EngineStopped where its engine has died."""
        try:
            return call(*arguments, **named)
        except self._vllm.v1.engine.exceptions.EngineDeadError as error:
            self._dead = True
            raise EngineStopped("vLLM's engine has died; its log says why") from error

    def _tell(self, event: Callable[[Watcher], None]) -> None:
        for watcher in self.watchers:
            with self._faults.tolerated("what the engine does could not be watched"):
                event(watcher)


def about_of(config: VllmConfig, resolved: Any, text: ModelText) -> EngineFacts:
    """What has to be known of it. resolved: vLLM's own configuration, once its engine runs."""
    model, parallel = resolved.model_config, resolved.parallel_config
    tensor, pipeline = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
    return EngineFacts(
        exact=False,
        device=resolved.device_config.device_type,
        weights=model.quantization or str(model.dtype).removeprefix("torch."),
        num_threads=None,
        threads=f"vLLM's (tensor parallel {tensor}, pipeline parallel {pipeline})",
        max_model_len=model.max_model_len,
        vocab_size=model.get_vocab_size(),
        eos_token_ids=text.ends,
        embedding_size=model.get_hidden_size(),
        max_num_seqs=resolved.scheduler_config.max_num_seqs,
        block_size=resolved.cache_config.block_size,
        kv_cache_memory=config.kv_cache_memory,
        drafters=config.drafters,
        seed=config.seed,
    )


def _draft_length(resolved: Any) -> int | None:
    speculative = resolved.speculative_config
    return None if speculative is None else speculative.num_speculative_tokens
