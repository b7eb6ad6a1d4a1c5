"""The answers of /v1/completions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from outrider.engine.generation import TextPrompt
from outrider.outputs import Increment, Logprobs, RequestOutput
from outrider.serving.answers import Asked, ChoicesAnswer, Ended, Released
from outrider.serving.framing import Form
from outrider.serving.logprobs import completion_logprobs
from outrider.serving.parsing.events import Event
from outrider.serving.replies import Usage, prompt_logprobs_of, usage_of, with_optional
from outrider.serving.requests import CompletionRequest


class CompletionAnswer(ChoicesAnswer):
    """texts: of the prompts, if they are to be echoed; decode: the text of each token."""

    kind = ("text_completion", "text_completion")
    prefix = "cmpl"
    _body: CompletionRequest

    def __init__(
        self, asked: Asked, *, texts: Sequence[str], decode: Callable[[Sequence[int]], list[str]]
    ) -> None:
        super().__init__(asked)
        self._texts = texts
        self._decode = decode
        self._offsets: defaultdict[int, int] = defaultdict(int)

    def opening(self) -> list[Form]:
        per_prompt = self._asked.per_prompt
        return [
            self._chunk([self._choice_head(index, Released()) | {"text": text, "logprobs": None}])
            for number, text in enumerate(self._texts)
            for index in range(number * per_prompt, (number + 1) * per_prompt)
        ]

    def chunks(self, number: int, increment: Increment) -> list[Form]:
        if not self._body.scored_only:
            return super().chunks(number, increment)
        if increment.finish_reason is None:
            return []
        index = number * self._asked.per_prompt + increment.index
        return self._told(index, [], Released(finish_reason=increment.finish_reason))

    def _told(self, index: int, events: list[Event], released: Released) -> list[Form]:
        shown = None
        if released.logprobs is not None:
            texts = self._decode(released.token_ids)
            shown = completion_logprobs(released.token_ids, released.logprobs, texts, self._offsets[index])
            self._offsets[index] += sum(map(len, texts))
        choice = {**self._choice_head(index, released), "text": released.text, "logprobs": shown}
        return [self._chunk([choice])]

    def _usage(self, outputs: list[RequestOutput]) -> Usage:
        return usage_of(outputs, completion=not self._body.scored_only)

    def _choice(self, ended: Ended) -> Form:
        index, released, output = ended.index, ended.released, ended.output
        tokens, text, logprobs = list(released.token_ids), released.text, list(released.logprobs or ())
        if self._body.scored_only:
            tokens, text, logprobs = [], "", []
        own = Released(tokens, text, None, released.finish_reason, released.stop_reason)
        of: list[Logprobs | None] = [*logprobs]
        if self._body.echo:
            text = self._texts[index // self._asked.per_prompt] + text
            tokens = [*output.prompt_token_ids, *tokens]
            of = [*(output.prompt_logprobs or ()), *of]
        shown = None
        if self._body.logprobs is not None:
            shown = completion_logprobs(tokens, of, self._decode(tokens), 0)
        form = {**self._choice_head(index, own), "text": text, "logprobs": shown}
        asked = self._body.prompt_logprobs is not None
        return with_optional(
            form,
            prompt_logprobs=prompt_logprobs_of(output) if asked else None,
            prompt_token_ids=list(output.prompt_token_ids) if self._body.return_token_ids else None,
        )


def echoed(prompts: Sequence[TextPrompt], text_of: Callable[[Sequence[int]], str]) -> list[str]:
    """The texts of prompts, also of those that were given as tokens."""
    return [text_of(prompt.token_ids) if prompt.text is None else prompt.text for prompt in prompts]
