"""The offline API."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from outrider.aside import aside
from outrider.cache.pages import release_freed
from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.engine.engine import Engine
from outrider.engine.request import RequestGroup
from outrider.errors import ConfigError, RequestError
from outrider.fair_lock import FairLock
from outrider.loading import Listener, unheard
from outrider.messages import shown
from outrider.models.characters import bound_of
from outrider.models.tokenizer import Tokenizer
from outrider.outputs import EmbeddingOutput, EmbeddingRequestOutput, Increment, RequestOutput
from outrider.params import SamplingParams
from outrider.planning.limit import within_limit
from outrider.progress import GenerationProgress

logger = logging.getLogger(__name__)

Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, or vLLM's `{"prompt": text}` and `{"prompt_token_ids": ids}`."""
Message = Mapping[str, Any]
"""OpenAI's: a `role` and a `content`."""


class RequestsFailed(RequestError):
    """Some requests of a batch could not be served; the others were finished.

    errors: reason by index in the batch; outputs: one a prompt, None where it failed before it started.
    """

    def __init__(self, errors: Mapping[int, str], outputs: Sequence[RequestOutput | None]) -> None:
        self.errors = dict(errors)
        self.outputs = tuple(outputs)
        if len(outputs) == 1:
            super().__init__(self.errors[0])
        else:
            reasons = "; ".join(f"prompt {index}: {reason}" for index, reason in self.errors.items())
            super().__init__(
                f"{len(self.errors)} of {len(outputs)} requests failed, the others are in this error's "
                f"`outputs`: {reasons}"
            )


class LLM:
    """A target model, and a drafter that rides ahead of it.

    `LLM(model, speculative_model="ngram", num_speculative_tokens=5)`. Options are the fields of
    `outrider.config.EngineConfig`, and for speculation either `speculative_model`,
    `num_speculative_tokens`, `workload`, `prompt_lookup_min`, `prompt_lookup_max`, `acceptance` and
    `draft_quantization`, or `speculative_config={"method": "draft_model" | "head" | "ngram", "model": ...}`.

    listener: is called with each step of loading, an `outrider.loading.Loading`.

    Several threads may share one: their requests run in the same batches, and streams may be read in between.

    Raises ConfigError for an option that is unknown or out of range, and for what `memory_limit` does not
    hold, and ModelError for a model that cannot be loaded.
    """

    def __init__(self, model: str, *, listener: Listener = unheard, **options: Any) -> None:
        self.config = within_limit(resolve(model, **options))
        self.engine = build_engine(self.config, listener=listener)
        self._bound = aside(lambda: bound_of(self.tokenizer.backend))  # wanted by the first text
        release_freed()  # by tokenizers and checkpoints, before the cache takes its memory
        self._lock = FairLock()
        self._inboxes: dict[str, deque[Increment]] = {}
        self._warned_of_bos = False
        self._left: deque[str] = deque()
        """Requests to abort, as soon as nobody steps the engine."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The target's tokenizer."""
        return self.engine.tokenizer

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
        priority: int | Sequence[int] = 0,
    ) -> list[RequestOutput]:
        """Complete one prompt or many, batched; outputs are in the order of the prompts.

        sampling_params, priority: one for all or one a prompt; a lower priority is served earlier and changes
        no token; with `scheduling_policy="fcfs"` there is none. use_tqdm: show progress on stderr.
        Raises RequestsFailed, a RequestError, after all other requests have finished.
        """
        inbox: deque[Increment] = deque()
        ids: list[str | None] = []
        errors: dict[int, str] = {}
        try:
            batch = _together(_as_batch(prompts), sampling_params, priority)
            for index, (prompt, params, rank) in enumerate(batch):
                try:
                    group = self._prepare(prompt, params, rank)
                except RequestError as error:
                    ids.append(None)
                    errors[index] = str(error)
                else:
                    ids.append(group.id)  # before it is queued: a Ctrl-C may come at any time
                    self._queue(group, inbox)
            added = [i for i in ids if i is not None]
            with GenerationProgress(len(added), enabled=use_tqdm) as progress:
                for increment in self._increments(added, inbox):
                    progress.update(increment)
            outputs = [None if i is None else self._take(i) for i in ids]
        except BaseException:
            self._abandon(ids)
            raise
        errors |= {n: o.error for n, o in enumerate(outputs) if o is not None and o.error is not None}
        if errors:
            raise RequestsFailed(errors, outputs)
        return [output for output in outputs if output is not None]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        """Answer one conversation or many, laid out by the model's chat template. Otherwise as `generate`."""
        prompts = [self.chat_prompt(conversation) for conversation in _as_conversations(messages)]
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm)

    def chat_prompt(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The token ids of a conversation, up to where the assistant's answer begins.

        As `chat_text`, whose text it tokenizes.
        """
        text = self.chat_text(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
        return self.encode(text, add_special_tokens=False)  # the template has written them

    def chat_text(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """A conversation as the model reads it, up to where the assistant's answer begins.

        messages: each has a `role` and a `content`, which is text or a list of OpenAI's text parts.
        add_generation_prompt: False leaves out what the template puts before an answer.
        tools: in OpenAI's form; chat_template_kwargs: more variables for the template, of JSON's types.
        Raises ConfigError where the model has no chat template, and RequestError for what it cannot lay out.
        """
        template = self.tokenizer.chat_template
        if template is None:
            raise ConfigError(f"model {self.config.model!r} has no chat template; use `generate`")
        text = template.render(
            messages,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables=chat_template_kwargs or {},
        )
        self.check_length(text)
        return text

    def check_length(self, text: str) -> None:
        """Raise RequestError for a text of more characters than the tokens of a prompt can hold. That costs
        nothing, and tokenizing megabytes takes seconds."""
        limit = self.engine.max_model_len
        bound = self._bound.result()
        if bound is not None and bound.excludes(text, limit - 1):
            raise RequestError(
                f"the prompt has {len(text)} characters, and no token more than {bound.longest}: with "
                f"max_model_len = {limit} it can have {limit - 1} tokens at most, and one is generated"
            )

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text, as the model reads a prompt."""
        ids = self.tokenizer.encode(text, add_special_tokens=add_special_tokens)
        bos = self.tokenizer.bos_token_id
        if add_special_tokens and bos is not None and ids[:2] == [bos, bos] and not self._warned_of_bos:
            self._warned_of_bos = True
            logger.warning(
                "a prompt begins with %r and the tokenizer adds another one, which few models are used to; "
                "leave it out of the text, or use `chat`",
                self.tokenizer.bos_token,
            )
        return ids

    def embed(self, prompts: Prompt | Sequence[Prompt]) -> list[EmbeddingRequestOutput]:
        """The embedding of one text or of many, in their order, each of length 1.

        For models that are meant for it, and for any other one with `pooling="mean"` or `"last"`. Raises
        ConfigError for a model that is not, and RequestError for a text that cannot be embedded.
        """
        outputs = []
        for number, prompt in enumerate(_as_batch(prompts)):
            tokens, _ = self._tokens(prompt)
            with self._alone() as engine:
                vector = engine.embedder.embed(tokens)
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
        inbox: deque[Increment] = deque()
        group = self._prepare(prompt, sampling_params or SamplingParams())
        request_id = group.id
        try:
            self._queue(group, inbox)
            yield from self._increments([request_id], inbox)
            output = self._take(request_id)
            if output.error is not None:
                raise RequestError(output.error)
            return output
        finally:
            self._abandon([request_id])

    def _prepare(self, prompt: Prompt, params: SamplingParams, priority: int = 0) -> RequestGroup:
        """A request that can be queued; meanwhile others may step."""
        ids, text = self._tokens(prompt)
        return self.engine.prepare(ids, params, prompt=text, priority=priority)

    def _queue(self, group: RequestGroup, inbox: deque[Increment]) -> None:
        """Its increments go to `inbox`."""
        with self._alone() as engine:
            self._inboxes[group.id] = inbox
            engine.queue(group)

    def _tokens(self, prompt: Prompt) -> tuple[Sequence[int], str | None]:
        """The prompt's token ids, and its text if it was given as text."""
        given: object = prompt
        if isinstance(prompt, Mapping):
            if prompt.keys() not in ({"prompt"}, {"prompt_token_ids"}):
                raise RequestError(
                    f"a prompt has the keys {sorted(prompt)}; give 'prompt' or 'prompt_token_ids'"
                )
            given = next(iter(prompt.values()))
        if isinstance(given, str):
            self.check_length(given)
            try:
                return self.encode(given), given
            except TypeError:
                raise RequestError("the prompt holds half of a surrogate pair; give the whole") from None
        if not hasattr(given, "__len__"):
            raise RequestError(f"a prompt is {shown(given)}; give text, a list of token ids, or a mapping")
        return cast(Sequence[int], given), None

    def _increments(self, ids: Sequence[str], inbox: deque[Increment]) -> Iterator[Increment]:
        """What is added to these requests until they have finished, whoever steps the engine."""
        while True:
            with self._alone() as engine:
                if not inbox:
                    if all(map(engine.finished, ids)):
                        return
                    for increment in engine.step():
                        if increment.request_id in self._inboxes:
                            self._inboxes[increment.request_id].append(increment)
            while inbox:
                yield inbox.popleft()

    def _take(self, request_id: str) -> RequestOutput:
        with self._alone() as engine:
            del self._inboxes[request_id]
            return engine.take(request_id)

    def _abandon(self, ids: Sequence[str | None]) -> None:
        """Abort and forget the requests that are still known, at once or when the engine is free.

        It does not wait: a stream may be closed by the collection of garbage, in the middle of a step.
        """
        self._left += [request_id for request_id in ids if request_id is not None]
        self._forget_left()

    @contextmanager
    def _alone(self) -> Iterator[Engine]:
        """The engine, for this thread alone."""
        try:
            with self._lock:
                yield self.engine
        finally:
            self._forget_left()

    def _forget_left(self) -> None:
        # Who has the lock comes by here after releasing it, so that nothing is left for long.
        while self._left and self._lock.take_if_free():
            try:
                while self._left:
                    request_id = self._left.popleft()
                    self._inboxes.pop(request_id, None)
                    self.engine.discard(request_id)
            finally:
                self._lock.release()


def _as_conversations(
    messages: Sequence[Message] | Sequence[Sequence[Message]],
) -> Sequence[Sequence[Message]]:
    """A list that begins with a list is several conversations."""
    several = isinstance(messages, Sequence) and messages and isinstance(messages[0], Sequence)
    return cast(Sequence[Sequence[Message]], messages if several else [messages])


def _as_batch(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A non-empty sequence of integers is one prompt of token ids."""
    if isinstance(prompts, (str, Mapping)) or (prompts and isinstance(prompts[0], int)):
        return [cast(Prompt, prompts)]
    return list(cast(Sequence[Prompt], prompts))


def _together(
    prompts: Sequence[Prompt],
    params: SamplingParams | Sequence[SamplingParams] | None,
    priority: int | Sequence[int],
) -> list[tuple[Prompt, SamplingParams, int]]:
    """Each prompt with its parameters and its priority. Raises ConfigError where their numbers differ."""
    if params is None or isinstance(params, SamplingParams):
        params = [params or SamplingParams()] * len(prompts)
    if not isinstance(priority, Sequence):
        priority = [priority] * len(prompts)
    for name, given in (("sampling_params", len(params)), ("priority", len(priority))):
        if given != len(prompts):
            raise ConfigError(f"{len(prompts)} prompts with {given} {name}; give one for all or one a prompt")
    return list(zip(prompts, params, priority, strict=True))
