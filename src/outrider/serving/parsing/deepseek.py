"""DeepSeek's forms, of V3 and R1, and of V3.1.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather
```json
{"city": "Paris"}
```<｜tool▁call▁end｜><｜tool▁calls▁end｜>

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>...
"""  # noqa: RUF002

from __future__ import annotations

import json
from typing import Any

from outrider.serving.parsing.format import ToolFormat, ToolUse
from outrider.serving.parsing.lark import Lark
from outrider.serving.parsing.reader import Reader, Steps

ALL = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")  # noqa: RUF001
ONE = ("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>")  # noqa: RUF001
SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001


class DeepSeekV31(ToolFormat):
    begins = (ALL[0],)
    tokens = (*ALL, *ONE, SEPARATOR)
    before_name = ""
    before_arguments = SEPARATOR
    after_arguments = ""
    between = ""

    def is_of(self, template: str) -> bool:
        return ALL[0] in template and "```json" not in template

    def after(self, lark: Lark, use: ToolUse, mark: str) -> str:
        end = lark.literal(self.after_arguments + ONE[1])
        call = lark.one_of(
            f"{lark.literal(ONE[0] + self.before_name + function.name + self.before_arguments)} "
            f"{lark.arguments(function)} {end}"
            for function in use.functions
        )
        more = f"({lark.literal(self.between)} {call})*" if use.many else ""
        return f"{call} {more} {lark.literal(ALL[1])}"

    def calls(self, reader: Reader, use: ToolUse) -> Steps[None]:
        yield from reader.skip_space()
        yield from reader.expect(ALL[0])
        yield from reader.skip_space()
        yield from reader.expect(ONE[0])
        more = True
        while more:
            yield from reader.expect(self.before_name)
            name, _ = yield from reader.through(self.before_arguments)
            index = yield from reader.begin_call(name)
            yield from reader.arguments(index)
            yield from reader.close(self.after_arguments + ONE[1])
            yield from reader.skip_space()
            more = (yield from reader.begins(ONE[0])) is not None
        yield from reader.close(ALL[1])


class DeepSeekV3(DeepSeekV31):
    before_name = "function" + SEPARATOR
    before_arguments = "\n```json\n"
    after_arguments = "\n```"
    between = "\n"

    def is_of(self, template: str) -> bool:
        return ALL[0] in template and "```json" in template

    def for_template(self, message: dict[str, Any]) -> dict[str, Any]:
        """The templates want arguments as a JSON text, and a content that is text."""
        if "tool_calls" not in message:
            return message
        calls = [
            call | {"function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
            for call in message["tool_calls"]
        ]
        return message | {"content": message.get("content") or "", "tool_calls": calls}
