"""An engine that the caller steps: vLLM's `LLMEngine`."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self

from outrider.engine.shared import Inbox
from outrider.errors import ConfigError
from outrider.foreign import refuse_lora
from outrider.llm import LLM, ModelFacts
from outrider.messages import shown
from outrider.metrics import Metric
from outrider.models.tokenizer import Tokenizer
from outrider.outputs import Increment, RequestOutput
from outrider.params import SamplingParams
from outrider.prompts import Prompt
from outrider.streams import OutputStream

if TYPE_CHECKING:
    from outrider.engine_args import EngineArgs


class LLMEngine:
    """Requests by the caller's own ids, of which each `step` tells what it added.

    An `LLM` has one, as `llm_engine`; both may be used at a time.
    """

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._inbox: Inbox = deque()
        self._ids: dict[str, str] = {}  # the engine's, by the caller's
        self._streams: dict[str, OutputStream] = {}  # by the engine's id

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs, **context: Any) -> Self:
        """Load what the arguments name. context: vLLM's `usage_context` and the like; it changes nothing.

        Raises ConfigError and ModelError as `LLM` does.
        """
        return cls(LLM(**engine_args.given))

    def add_request(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams,
        arrival_time: float | None = None,
        lora_request: None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> None:
        """Queue a request. Raises RequestError if it cannot run, and ConfigError for an id that runs already
        and for what would change the answer and is not done.

        arrival_time, trace_headers: change nothing; a request arrives now.
        """
        refuse_lora(lora_request)
        refuse_tokenization(tokenization_kwargs)
        if request_id in self._ids:
            raise ConfigError(
                f"request_id = {shown(request_id)}: it runs already; give another", "request_id"
            )
        llm = self._llm
        ids, text = llm.reader.read(prompt, params.truncate_prompt_tokens)
        group = llm.shared.engine.prepare(ids, params, prompt=text, priority=priority)
        begun = group.output()
        self._streams[group.id] = OutputStream(
            request_id, text, begun.prompt_token_ids, params.copied(), begun.metrics.arrival_time
        )
        self._ids[request_id] = group.id
        llm.shared.queue(group, self._inbox)

    def step(self) -> list[RequestOutput]:
        """One step of the engine, and the outputs of the requests that gained by it."""
        if not self._ids:
            return []
        self._llm.shared.step(self._inbox)
        added: dict[str, list[Increment]] = defaultdict(list)
        while self._inbox:
            increment = self._inbox.popleft()
            added[increment.request_id].append(increment)
        outputs = (self._output(number, increments) for number, increments in added.items())
        return [output for output in outputs if output is not None]

    def abort_request(self, request_id: str | Iterable[str]) -> None:
        """End and forget one request or several. An id that does not run is passed over."""
        for given in [request_id] if isinstance(request_id, str) else request_id:
            number = self._ids.pop(given, None)
            if number is not None:
                self._forget(number)
                self._llm.shared.abandon([number])

    def has_unfinished_requests(self) -> bool:
        """Whether steps have still something to add."""
        return bool(self._ids)

    def get_num_unfinished_requests(self) -> int:
        return len(self._ids)

    @property
    def model_config(self) -> ModelFacts:
        """What scripts ask of the model."""
        return self._llm.model_config

    def get_model_config(self) -> ModelFacts:
        return self._llm.model_config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._llm.tokenizer

    def get_tokenizer(self) -> Tokenizer:
        return self._llm.tokenizer

    def get_metrics(self) -> list[Metric]:
        """As `LLM.get_metrics`."""
        return self._llm.get_metrics()

    def reset_prefix_cache(self) -> bool:
        """As `LLM.reset_prefix_cache`."""
        return self._llm.reset_prefix_cache()

    def _output(self, number: str, increments: list[Increment]) -> RequestOutput | None:
        stream = self._streams.get(number)
        if stream is None:  # of a request that was aborted
            return None
        if not self._llm.shared.finished(number):
            return stream.add(increments)
        self._forget(number)
        return stream.last(self._llm.shared.take(number))

    def _forget(self, number: str) -> None:
        del self._streams[number]
        self._ids = {given: own for given, own in self._ids.items() if own != number}


def refuse_tokenization(given: Mapping[str, Any] | None) -> None:
    """Raise ConfigError for settings of the tokenizer that come with a request."""
    if given:
        raise ConfigError(
            f"tokenization_kwargs = {shown(given)}: a prompt is tokenized as the model does it; give token "
            "ids, or truncate_prompt_tokens in SamplingParams"
        )
