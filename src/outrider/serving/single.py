"""Answers of one sequence, whose whole form is what their stream comes to."""

from __future__ import annotations

from abc import abstractmethod

from outrider.outputs import CompletionOutput, RequestOutput
from outrider.serving.answers import Answer, Released
from outrider.serving.framing import Form
from outrider.serving.logprobs import chat_logprobs
from outrider.serving.parsing.events import together


def single(outputs: list[RequestOutput]) -> tuple[RequestOutput, CompletionOutput]:
    """The one output of a call, and the one sequence of it."""
    (output,) = outputs
    (completion,) = output.outputs
    return output, completion


class SingleAnswer(Answer):
    """Reads an answer that is not streamed as a stream of one chunk, so that both say the same."""

    def whole(self, outputs: list[RequestOutput]) -> Form:
        _, completion = single(outputs)
        parser = self._asked.parser(0, True)
        events = together([*parser.feed(completion.text), *parser.finish()])
        self._told(
            0,
            events,
            Released(
                completion.token_ids,
                completion.text,
                completion.logprobs,
                completion.finish_reason,
                completion.stop_reason,
            ),
        )
        return self.final(outputs)

    @abstractmethod
    def final(self, outputs: list[RequestOutput]) -> Form:
        """The whole answer, once all of it was told."""

    def _logprobs_of(self, released: Released) -> list[Form]:
        """One of OpenAI's forms a token; none where they are not asked for."""
        if not released.logprobs:
            return []
        told = chat_logprobs(released.token_ids, released.logprobs, self._asked.params.logprobs or 0)
        return [dict(entry) for entry in told["content"]]
