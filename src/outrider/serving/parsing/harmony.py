"""gpt-oss's form, harmony: an answer is a row of messages, each on a channel.

    <|channel|>analysis<|message|>The user asks ...<|end|><|start|>assistant
    <|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{"city": "Paris"}<|call|>

A call ends the output, so there is one in an answer.
"""

from __future__ import annotations

import re

from outrider.serving.parsing.dialect import Dialect, Expected
from outrider.serving.parsing.events import Content, Reasoning
from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Malformed, Reader, Steps
from outrider.serving.parsing.thinking import State

CHANNEL, MESSAGE, START, END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"
CONSTRAIN, RETURN, CALL = "<|constrain|>", "<|return|>", "<|call|>"
TOKENS = (CHANNEL, MESSAGE, START, END, CONSTRAIN, RETURN, CALL)
TO_WHOM, TO = " to=", "functions."
RECIPIENT = re.compile(r"to=([\w.-]+)")
ON = re.compile(r"<\|channel\|>(\w+)")


class HarmonyCalls(ToolFormat):
    tokens = TOKENS

    def is_of(self, template: str) -> bool:
        return CHANNEL in template and MESSAGE in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        """A message with a call, of which nothing is there yet."""
        return lark.one_of(
            f"{header} {lark.arguments(function)}"
            for function in use.functions
            for header in (
                lark.literal(f"{CHANNEL}commentary to={TO}{function.name} {CONSTRAIN}json{MESSAGE}"),
                lark.literal(f" to={TO}{function.name}{CHANNEL}commentary json{MESSAGE}"),
            )
        )

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        header = yield from read_header(reader)
        recipient = RECIPIENT.search(header)
        if recipient is None:
            raise Malformed
        yield from reader.skip_space()
        yield from reader.arguments((yield from reader.begin_call(recipient[1].removeprefix(TO))))


def read_header(reader: Reader) -> Steps[str]:
    """Read what stands before a message's text. Raises Malformed."""
    begun = yield from reader.expect(TO_WHOM, CHANNEL)
    rest, _ = yield from reader.through(MESSAGE)
    return begun + rest


class Harmony(Dialect):
    tools = HarmonyCalls()

    def state(self, prompt: str) -> State:
        return "free"

    def is_plain(self, expected: Expected) -> bool:
        return False

    def shown(self, expected: Expected) -> tuple[str, ...]:
        return TOKENS

    def read(self, reader: Reader, expected: Expected) -> Steps[None]:
        told: set[type] = set()
        while True:
            use = expected.calls
            if use is not None and (yield from reader.attempt(self.tools.calls(reader, use))):
                continue
            if (yield from reader.attempt(self._message(reader, told))):
                continue
            if (yield from reader.begins(CHANNEL)) is not None:
                reader.skip_rest()  # a header that does not end
            mark = yield from reader.until(*TOKENS)  # what stands outside of messages is text
            if mark is None:
                return
            yield from reader.skip_space()
            if mark != CHANNEL:
                yield from reader.expect(mark)
            if mark == START:
                yield from reader.begins("assistant")

    def _message(self, reader: Reader, told: set[type]) -> Steps[None]:
        """Read a message up to what ends it. told: the kinds of text that there were before."""
        header = yield from read_header(reader)
        channel = ON.search(header)
        kind = Reasoning if channel is not None and channel[1] == "analysis" else Content
        if kind in told:
            yield kind("\n\n")
        told.add(kind)
        yield from reader.until(*TOKENS, kind=kind)

    def start(self, lark: Lark, expected: Expected, answer: str | None) -> str:
        marks = (CHANNEL, MESSAGE, START, END)
        text = lark.text(without=marks)
        before = lark.one_of(
            f"{lark.literal(CHANNEL + channel + MESSAGE)} {lark.text_through(END, without=marks)} "
            f"{lark.literal(START + 'assistant')}"
            for channel in ("analysis", "commentary")
        )
        final = f"{lark.literal(CHANNEL + 'final' + MESSAGE)} {text if answer is None else answer}"
        use = expected.calls
        if use is None:
            return f"{before}* {final}"
        call = self.tools.after(lark, use, CHANNEL)
        last = call if use.mode == "required" else lark.one_of([final, call])
        return f"{before}* {last}"
