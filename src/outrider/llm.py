"""The offline API."""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, Unpack

from outrider.batch import RequestsFailed, together
from outrider.beam_search import BeamSearchOutput, BeamSearchParams, beam_search
from outrider.cache.pages import release_freed
from outrider.config import OWN_ENGINE, EngineConfig
from outrider.engine.engine import Engine
from outrider.engine.facts import EngineFacts
from outrider.engine.seam import Prepared
from outrider.engine.shared import Inbox, SharedEngine
from outrider.engines import load_of
from outrider.errors import ConfigError, RequestError
from outrider.foreign import refuse_lora
from outrider.loading import Listener, unheard
from outrider.messages import shown
from outrider.metrics import Metric, Tally
from outrider.models.tokenizer import Tokenizer
from outrider.options import Options, signed
from outrider.outputs import EmbeddingOutput, EmbeddingRequestOutput, Increment, RequestOutput
from outrider.params import SamplingParams
from outrider.progress import GenerationProgress
from outrider.prompts import ChatLayout, Message, Prompt, PromptReader, as_batch, as_conversations

if TYPE_CHECKING:
    from outrider.llm_engine import LLMEngine

METRICS = "vllm:"
"""What the names of metrics begin with, so that scripts find them."""


@dataclass(frozen=True)
class ModelFacts:
    """What scripts ask of a model. max_model_len: tokens of a prompt and its output together."""

    model: str
    max_model_len: int
    vocab_size: int

    def get_vocab_size(self) -> int:
        return self.vocab_size


class LLM:
    """A target model, and a drafter that rides ahead of it.

    `LLM(model, speculative_model="suffix", num_speculative_tokens=5)`. Options are the fields of
    `outrider.config.EngineConfig`, and for speculation either `speculative_model`,
    `num_speculative_tokens`, `workload`, `prompt_lookup_min`, `prompt_lookup_max`, `acceptance`,
    `draft_quantization`, `draft_vocab_size` and `draft_vocabulary`, or
    `speculative_config={"method": "draft_model" | "head" | "suffix", "model": ...}`.
    `speculative_model="auto"` takes what suits the target of the heads and smaller models on this disk, as
    `found` says, which is None otherwise. None leaves an option at its default. What vLLM has besides and
    cannot change an answer is taken with a warning; what would is refused (`outrider.vllm_arguments`).

    engine: 'outrider', or 'vllm' for models that vLLM computes, with the options of
    `outrider.cluster.vllm.config.VllmConfig`; see the page "Targets on vLLM".

    listener: is called with each step of loading, an `outrider.loading.Loading`. beside: bytes of
    `memory_limit` that are for something else beside the engine, such as learning.

    Several threads may share one: their requests run in the same batches, and streams may be read in between.
    `with LLM(...) as llm:` gives its memory back in the end, as `shutdown` does.

    Raises ConfigError for an option that is unknown or out of range, and for what `memory_limit` does not
    hold, and ModelError for a model that cannot be loaded.
    """

    @signed
    def __init__(
        self,
        model: str,
        *,
        listener: Listener = unheard,
        beside: Callable[[EngineConfig], int] | None = None,
        **options: Unpack[Options],
    ) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        self.tally = Tally()
        load = load_of(str(given.pop("engine", OWN_ENGINE)))
        engine, self.config, self.found = load(
            model, given, listener=listener, beside=beside, watchers=[self.tally]
        )
        self.shared = SharedEngine(engine)
        self._reader = PromptReader(engine.tokenizer, engine.about.max_model_len)

    def __repr__(self) -> str:
        about = self.about
        said = {
            "model": self.config.model,
            "weights": about.weights,
            "drafters": list(about.drafters),
            "device": about.device,
            "num_threads": about.num_threads,
            "max_model_len": about.max_model_len,
        }
        told = (f"{name}={value!r}" for name, value in said.items() if value is not None)
        return f"LLM({', '.join(told)})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    def shutdown(self) -> None:
        """End all requests and give the memory back. Who asks for tokens afterwards gets a ConfigError."""
        self.shared.close()
        gc.collect()
        release_freed()

    @property
    def engine(self) -> Engine:
        """Our engine, for whoever has it alone. Raises ConfigError where another one computes."""
        return self.shared.engine.ours

    @property
    def about(self) -> EngineFacts:
        """What has to be known of the engine, whichever computes."""
        return self.shared.engine.about

    @property
    def reader(self) -> PromptReader:
        """What reads prompts for the engine."""
        self.shared.check_open()
        return self._reader

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's tokenizer."""
        return self.shared.engine.tokenizer

    @cached_property
    def llm_engine(self) -> LLMEngine:
        """The same engine, to be stepped by the caller."""
        from outrider.llm_engine import LLMEngine  # which has an LLM

        return LLMEngine(self)

    @property
    def model_config(self) -> ModelFacts:
        """What scripts ask of the target."""
        return ModelFacts(self.config.model, self.about.max_model_len, self.about.vocab_size)

    def get_tokenizer(self) -> Tokenizer:
        """The target's tokenizer: `encode`, `decode`, `apply_chat_template` and so on."""
        return self.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What requests are sampled with that name no parameters: what the model's authors would have it be,
        as `generation_config` and `override_generation_config` say."""
        return SamplingParams(**self.shared.engine.sampling_defaults)

    def get_metrics(self) -> list[Metric]:
        """What has been counted so far, by vLLM's names; those that vLLM has not are ours."""
        labels = {"model_name": self.config.model, "engine": "0"}
        return self.tally.snapshot(self.shared.engine, prefix=METRICS, labels=labels)

    def reset_prefix_cache(self) -> bool:
        """Forget the beginnings of prompts that were kept; False, with nothing forgotten, while requests run.

        No answer depends on it.
        """
        with self.shared.alone() as engine:
            return engine.reset_prefix_cache()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        lora_request: None = None,
        priority: int | Sequence[int] = 0,
    ) -> list[RequestOutput]:
        """Complete one prompt or many, batched; outputs are in the order of the prompts.

        sampling_params, priority: one for all or one a prompt; a lower priority is served earlier and changes
        no token; with `scheduling_policy="fcfs"` there is none. Without sampling_params:
        `get_default_sampling_params`. use_tqdm: show progress on stderr. lora_request: is refused.
        Raises RequestsFailed, a RequestError, after all other requests have finished.
        """
        refuse_lora(lora_request)
        inbox: Inbox = deque()
        ids: list[str | None] = []
        errors: dict[int, str] = {}
        params = self.get_default_sampling_params() if sampling_params is None else sampling_params
        try:
            batch = together(as_batch(prompts), params, priority)
            for index, (prompt, own, rank) in enumerate(batch):
                try:
                    group = self._prepare(prompt, own, rank)
                except RequestError as error:
                    ids.append(None)
                    errors[index] = str(error)
                else:
                    ids.append(group.id)  # before it is queued: a Ctrl-C may come at any time
                    self.shared.queue(group, inbox)
            added = [i for i in ids if i is not None]
            with GenerationProgress(len(added), enabled=use_tqdm) as progress:
                for increment in self.shared.increments(added, inbox):
                    progress.update(increment)
            outputs = [None if i is None else self.shared.take(i) for i in ids]
        except BaseException:
            self.shared.abandon(ids)
            raise
        errors |= {n: o.error for n, o in enumerate(outputs) if o is not None and o.error is not None}
        if errors:
            raise RequestsFailed(errors, outputs)
        return [output for output in outputs if output is not None]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: bool = True,
        lora_request: None = None,
        chat_template: str | None = None,
        chat_template_content_format: Literal["auto", "string"] = "auto",
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation or many, laid out by the model's chat template.

        The conversation's arguments are those of `chat_text`, the others those of `generate`. What templates
        read is always text: chat_template_content_format is 'auto' or 'string'.
        """
        if chat_template_content_format not in ("auto", "string"):
            raise ConfigError(
                f"chat_template_content_format = {shown(chat_template_content_format)}: templates are given "
                "text; give 'auto' or 'string'"
            )
        prompts = [
            self.chat_prompt(
                conversation,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
                chat_template=chat_template,
                chat_template_kwargs=chat_template_kwargs,
            )
            for conversation in as_conversations(messages)
        ]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm, lora_request=lora_request)

    def chat_prompt(self, messages: Sequence[Message], **layout: Unpack[ChatLayout]) -> list[int]:
        """The token ids of a conversation, up to where the assistant's answer begins.

        As `chat_text`, whose text it tokenizes.
        """
        text = self.chat_text(messages, **layout)
        return self.encode(text, add_special_tokens=False)  # the template has written them

    def chat_text(self, messages: Sequence[Message], **layout: Unpack[ChatLayout]) -> str:
        """A conversation as the model reads it, up to where the assistant's answer begins.

        messages: each has a `role` and a `content`, which is text or a list of OpenAI's text parts.
        add_generation_prompt: False leaves out what the template puts before an answer.
        continue_final_message: the text ends with the last message, which the answer goes on with.
        tools: in OpenAI's form. chat_template: Jinja, in place of the model's own; chat_template_kwargs: more
        variables for the template, of JSON's types.
        Raises ConfigError where the model has no chat template, and RequestError for what it cannot lay out.
        """
        return self.reader.lay_out(messages, **layout)

    def check_length(self, text: str) -> None:
        """Raise RequestError for a text of more characters than the tokens of a prompt can hold. That costs
        nothing, and tokenizing megabytes takes seconds."""
        self.reader.check_length(text)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, as the model reads a prompt."""
        return self.reader.encode(text, add_special_tokens=add_special_tokens)

    def embed(self, prompts: Prompt | Sequence[Prompt]) -> list[EmbeddingRequestOutput]:
        """The embedding of one text or of many, in their order, each of length 1.

        For models that are meant for it, and for any other one with `pooling="mean"` or `"last"`. Raises
        ConfigError for a model that is not, and RequestError for a text that cannot be embedded.
        """
        outputs = []
        for number, prompt in enumerate(as_batch(prompts)):
            tokens, _ = self.reader.read(prompt)
            with self.shared.alone() as engine:
                vector = engine.embed(tokens)
            embedding = EmbeddingOutput(vector.tolist())
            outputs.append(EmbeddingRequestOutput(str(number), tuple(tokens), embedding))
        return outputs

    def stream(
        self, prompt: Prompt, sampling_params: SamplingParams | None = None
    ) -> Generator[Increment, None, RequestOutput]:
        """Complete one prompt and yield what each step adds; the generator returns the whole output.

        The request begins with the iteration; leaving it aborts the request. Raises RequestError if the
        request cannot run.
        """
        inbox: Inbox = deque()
        group = self._prepare(prompt, sampling_params or self.get_default_sampling_params())
        request_id = group.id
        try:
            self.shared.queue(group, inbox)
            yield from self.shared.increments([request_id], inbox)
            output = self.shared.take(request_id)
            if output.error is not None:
                raise RequestError(output.error)
            return output
        finally:
            self.shared.abandon([request_id])

    def beam_search(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: BeamSearchParams,
        lora_request: None = None,
        use_tqdm: bool = False,
    ) -> list[BeamSearchOutput]:
        """The likeliest continuations of each prompt that a search of `params.beam_width` finds.

        It is the same with every drafter. Raises RequestsFailed for a prompt that cannot run. use_tqdm:
        changes nothing, since each token is a call.
        """
        refuse_lora(lora_request)

        def generate(beams: Sequence[Sequence[int]], asked: SamplingParams) -> list[RequestOutput]:
            return self.generate(beams, asked, use_tqdm=False)

        return beam_search(
            [self.reader.read(prompt)[0] for prompt in as_batch(prompts)],
            params,
            generate=generate,
            decode=self.tokenizer.decode,
            eos=self.about.eos_token_ids,
            max_model_len=self.about.max_model_len,
        )

    def _prepare(self, prompt: Prompt, params: SamplingParams, priority: int = 0) -> Prepared:
        """A request that can be queued; meanwhile others may step."""
        ids, text = self.reader.read(prompt, params.truncate_prompt_tokens)
        return self.shared.engine.prepare(ids, params, prompt=text, priority=priority)
