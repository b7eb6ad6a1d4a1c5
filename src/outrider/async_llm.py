"""The offline API for an event loop: vLLM's `AsyncLLM`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Self, Unpack

from outrider.engine.async_engine import AsyncEngine
from outrider.engine.generation import EngineStopped, Generation, TextPrompt
from outrider.errors import ConfigError, RequestError
from outrider.foreign import refuse_lora
from outrider.llm import LLM, ModelFacts
from outrider.llm_engine import refuse_tokenization
from outrider.loading import Listener, unheard
from outrider.messages import shown
from outrider.metrics import Metric
from outrider.models.tokenizer import Tokenizer
from outrider.options import Options, signed
from outrider.outputs import RequestOutput
from outrider.params import SamplingParams
from outrider.prompts import Prompt
from outrider.streams import OutputStream

if TYPE_CHECKING:
    from outrider.engine_args import EngineArgs


class AsyncLLM:
    """A target model and its drafter behind an event loop; the arguments are those of `LLM`.

    Requests of many tasks run in the same batches. A thread of its own steps the engine, from the first
    request until `shutdown`; all requests belong to the event loop of the first.

    Raises ConfigError and ModelError as `LLM` does.
    """

    @signed
    def __init__(self, model: str, *, listener: Listener = unheard, **options: Unpack[Options]) -> None:
        self.llm = LLM(model, listener=listener, **options)
        self._running: dict[str, Generation] = {}
        self._engine = AsyncEngine(self.llm.shared.engine, capacity=math.inf, unread=math.inf)
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def from_engine_args(cls, engine_args: EngineArgs, **context: Any) -> Self:
        """Load what the arguments name. context: vLLM's `usage_context`, `start_engine_loop` and the like; it
        changes nothing."""
        return cls(**engine_args.given)

    async def generate(
        self,
        prompt: Prompt,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        lora_request: None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> AsyncGenerator[RequestOutput, None]:
        """Complete a prompt. Each output holds all so far, or what `sampling_params.output_kind` says.

        Whoever stops iterating, or is cancelled, aborts the request. request_id: by which `abort` finds it.
        trace_headers: change nothing. Raises RequestError for a request that cannot run, and ConfigError for
        an id that runs already, and for what would change the answer and is not done.
        """
        refuse_lora(lora_request)
        refuse_tokenization(tokenization_kwargs)
        params = (sampling_params or self.llm.get_default_sampling_params()).copied()
        engine = self._started()
        arrival_time = self.llm.shared.engine.now()
        ids, text = await asyncio.to_thread(self.llm.reader.read, prompt, params.truncate_prompt_tokens)
        generation = engine.generate([TextPrompt(ids, text)], params, priority=priority)
        name = request_id or f"request-{id(generation)}"
        if name in self._running:
            raise ConfigError(f"request_id = {shown(name)}: it runs already; give another", "request_id")
        self._running[name] = generation
        try:
            async with generation:
                stream = OutputStream(name, text, ids, params, arrival_time)
                async for _, increment in generation:
                    if (output := stream.add([increment])) is not None:
                        yield output
                (whole_output,) = generation.outputs
                if whole_output.error is not None:
                    raise RequestError(whole_output.error)
                yield stream.last(whole_output)
        finally:
            del self._running[name]

    async def abort(self, request_id: str | Iterable[str]) -> None:
        """End one request or several, whose last outputs then say 'abort'. An id that does not run is passed
        over."""
        for name in [request_id] if isinstance(request_id, str) else request_id:
            if name in self._running:
                self._engine.abort(self._running[name])

    def shutdown(self) -> None:
        """End all requests and give the memory back; it waits for the step that runs."""
        self._engine.stop()
        self.llm.shutdown()

    async def get_tokenizer(self) -> Tokenizer:
        """The target's tokenizer."""
        return self.llm.tokenizer

    async def get_model_config(self) -> ModelFacts:
        """What scripts ask of the model."""
        return self.llm.model_config

    async def check_health(self) -> None:
        """Raise EngineStopped where requests are not taken any more."""
        if self._loop is not None and self._engine.stopped is not None:
            raise EngineStopped(self._engine.stopped)

    async def reset_prefix_cache(self) -> bool:
        """Forget the beginnings of prompts that were kept; False, with nothing done, while requests run."""
        return await self._started().ask(lambda engine: engine.reset_prefix_cache())

    def get_default_sampling_params(self) -> SamplingParams:
        """As `LLM.get_default_sampling_params`."""
        return self.llm.get_default_sampling_params()

    def get_metrics(self) -> list[Metric]:
        """As `LLM.get_metrics`."""
        return self.llm.get_metrics()

    def __repr__(self) -> str:
        return f"Async{self.llm!r}"

    def _started(self) -> AsyncEngine:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
            self._engine.start()
        if self._loop is not loop:
            raise ConfigError("this AsyncLLM belongs to another event loop; make one in each")
        return self._engine
