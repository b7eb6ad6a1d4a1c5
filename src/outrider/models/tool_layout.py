"""Tools as text, for models whose chat templates do not lay them out: in the form of Hermes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

INTRODUCTION = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{tools}
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{{"name": <function-name>, "arguments": <args-json-object>}}
</tool_call>"""


def in_text(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The conversation with tools, calls and their results as text of system, assistant and user.

    messages: as `ChatTemplate.render` takes them, their contents as text or as text parts.
    """
    told: list[dict[str, Any]] = []
    for message in messages:
        match message.get("role"):
            case "tool":
                result = f"<tool_response>\n{_text(message)}\n</tool_response>"
                if told and told[-1].get("results"):
                    told[-1] = told[-1] | {"content": f"{told[-1]['content']}\n{result}"}
                else:
                    told.append({"role": "user", "content": result, "results": True})
            case "assistant" if message.get("tool_calls"):
                others = {key: value for key, value in message.items() if key != "tool_calls"}
                parts = [_text(message), *map(_call, message["tool_calls"])]
                told.append(others | {"content": "\n".join(part for part in parts if part)})
            case _:
                told.append(dict(message))
    plain = [{key: value for key, value in message.items() if key != "results"} for message in told]
    if not tools:
        return plain
    introduction = INTRODUCTION.format(
        tools="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools)
    )
    if plain and plain[0].get("role") in ("system", "developer"):
        introduction = f"{_text(plain[0])}\n\n{introduction}"
        plain = plain[1:]
    return [{"role": "system", "content": introduction}, *plain]


def _call(call: Mapping[str, Any]) -> str:
    function = call["function"]
    form = {"name": function["name"], "arguments": function["arguments"]}
    return f"<tool_call>\n{json.dumps(form, ensure_ascii=False)}\n</tool_call>"


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content)
