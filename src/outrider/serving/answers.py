"""How the outputs of one call are told to a client, whole or chunk by chunk, whatever the wire form is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from outrider.outputs import CompletionOutput, Increment, Logprobs, RequestOutput
from outrider.params import SamplingParams
from outrider.serving.errors import as_api_error
from outrider.serving.framing import DATA, Form, Framing
from outrider.serving.parsing.events import Event, Parser, PlainText, Said, message_of, together
from outrider.serving.replies import metrics_of, usage_of, with_optional
from outrider.serving.requests import Sampling
from outrider.serving.traces import SpeculationTrace, Tracer


@dataclass(frozen=True)
class Released:
    """Tokens of one sequence whose text is no longer held back, and what else is known of them by now."""

    token_ids: Sequence[int] = ()
    text: str = ""
    logprobs: Sequence[Logprobs] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    trace: SpeculationTrace | None = None


@dataclass(frozen=True)
class Ended:
    """A sequence that has ended. index: in the call; said: what its text means; output: of its prompt."""

    index: int
    released: Released
    said: Said
    output: RequestOutput


def plain_text(index: int, whole: bool) -> Parser:
    """A parser that looks for nothing."""
    return PlainText()


@dataclass(frozen=True)
class Asked:
    """A call, as far as its answer has to know it.

    created: seconds since 1970; model: what clients call it; params: of each prompt's
    sequences; prompt_tokens: of all prompts; tracer: if
    the drafts are to be told; parser: makes what reads the text of a sequence, which is given by its index in
    the call, and whether the text is told as a whole.
    """

    request_id: str
    created: int
    model: str
    body: Sampling
    params: SamplingParams
    prompt_tokens: int
    tracer: Tracer | None = None
    parser: Callable[[int, bool], Parser] = plain_text

    @property
    def per_prompt(self) -> int:
        """Sequences of each prompt."""
        return self.params.n


class Answer(ABC):
    """One call's answer. framing: of its chunks."""

    framing: Framing = DATA

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._parsers: dict[int, Parser] = {}
        self._waiting: defaultdict[int, list[Logprobs]] = defaultdict(list)  # for their tokens' text

    @abstractmethod
    def whole(self, outputs: list[RequestOutput]) -> Form:
        """The answer in one; `_ended` says what each sequence comes to."""

    def opening(self) -> list[Form]:
        """The chunks before the first token."""
        return []

    def chunks(self, number: int, increment: Increment) -> list[Form]:
        """What a step added to the prompt of this number."""
        index = number * self._asked.per_prompt + increment.index
        released = self._released(index, increment)
        return [] if released is None else self._told(index, self._events(index, released), released)

    def closing(self, outputs: list[RequestOutput]) -> list[Form]:
        """The chunks after the last token."""
        return []

    def failure(self, error: Exception) -> Form:
        """The chunk that ends a stream with an error."""
        return dict(as_api_error(error).body())

    @abstractmethod
    def _told(self, index: int, events: list[Event], released: Released) -> list[Form]:
        """The chunks for what was added to one sequence. events: what its text means, often nothing yet."""

    def _ended(self, outputs: list[RequestOutput]) -> list[Ended]:
        """All sequences of a call that has ended."""
        return [
            self._end(number * self._asked.per_prompt + completion.index, completion, output)
            for number, output in enumerate(outputs)
            for completion in output.outputs
        ]

    def _end(self, index: int, completion: CompletionOutput, output: RequestOutput) -> Ended:
        parser = self._asked.parser(index, True)
        said = message_of([*parser.feed(completion.text), *parser.finish()])
        released = Released(
            completion.token_ids,
            completion.text,
            completion.logprobs,
            completion.finish_reason,
            completion.stop_reason,
        )
        return Ended(index, released, said, output)

    def _released(self, index: int, increment: Increment) -> Released | None:
        """None where there is nothing to tell yet."""
        waiting, tracer = self._waiting[index], self._asked.tracer
        waiting += increment.logprobs or ()
        if tracer is not None:
            tracer.add(index, increment)
        if not increment.pieces and increment.finish_reason is None:
            return None
        logprobs = None if increment.logprobs is None else waiting[: len(increment.pieces)]
        del waiting[: len(increment.pieces)]
        return Released(
            [piece.token_id for piece in increment.pieces],
            increment.text,
            logprobs,
            increment.finish_reason,
            increment.stop_reason,
            None if tracer is None else tracer.take(index, increment.pieces),
        )

    def _events(self, index: int, released: Released) -> list[Event]:
        parser = self._parsers.get(index)
        if parser is None:
            parser = self._parsers[index] = self._asked.parser(index, False)
        events = parser.feed(released.text)
        if released.finish_reason is not None:
            events += parser.finish()
        return together(events)


class ChoicesAnswer(Answer):
    """An answer in the form of OpenAI's completions, whose sequences are `choices`.

    kind: what the whole and what a chunk calls itself; prefix: of the ids.
    """

    kind: tuple[str, str]
    prefix: str

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._body = asked.body
        self._head = {
            "id": f"{self.prefix}-{asked.request_id}",
            "created": asked.created,
            "model": asked.model,
        }

    def whole(self, outputs: list[RequestOutput]) -> Form:
        choices = [self._choice(ended) for ended in self._ended(outputs)]
        form = {**self._head, "object": self.kind[0], "choices": choices, "usage": self._usage(outputs)}
        return with_optional(form, **self._extras(outputs))

    def closing(self, outputs: list[RequestOutput]) -> list[Form]:
        if not (self._body.include_usage or self._body.speculation_metrics):
            return []
        usage = {"usage": self._usage(outputs)} if self._body.include_usage else {}
        return [with_optional({**self._chunk([]), **usage}, metrics=self._metrics(outputs))]

    @abstractmethod
    def _choice(self, ended: Ended) -> Form:
        """One whole sequence."""

    def _chunk(self, choices: list[Form]) -> Form:
        usage = {"usage": None} if self._body.include_usage else {}
        return {**self._head, "object": self.kind[1], "choices": choices, **usage}

    def _choice_head(self, index: int, released: Released) -> Form:
        token_ids = list(released.token_ids) if self._body.return_token_ids else None
        head = {
            "index": index,
            "finish_reason": released.finish_reason,
            "stop_reason": released.stop_reason,
        }
        return with_optional(head, token_ids=token_ids, speculation_trace=released.trace)

    def _usage(self, outputs: list[RequestOutput]) -> Any:
        return usage_of(outputs)

    def _metrics(self, outputs: list[RequestOutput]) -> Any:
        return metrics_of(outputs) if self._body.speculation_metrics else None

    def _extras(self, outputs: list[RequestOutput]) -> dict[str, Any]:
        """Fields of the whole answer that are there on request."""
        return {"metrics": self._metrics(outputs)}
