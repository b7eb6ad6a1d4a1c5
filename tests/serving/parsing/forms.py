"""An answer in each form of calls, and what it means."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.serving.parsing.events import Said, ToolCall
from outrider.serving.parsing.format import Function, ToolUse

CITY = {
    "type": "object",
    "properties": {
        "city": {"type": "string"},
        "days": {"type": "integer"},
        "unit": {"enum": ["C", "F"]},
        "hourly": {"type": "boolean"},
        "near": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["city"],
}
FUNCTIONS = (Function("get_weather", CITY, strict=True), Function("now", None, strict=False))
USE = ToolUse(FUNCTIONS, "auto", many=True)


@dataclass(frozen=True)
class Form:
    """parser: its name; template: a piece of a template that has it; tokens: marks that tokenizers have."""

    parser: str
    template: str
    text: str
    content: str
    calls: tuple[tuple[str, str], ...]
    reasoning: str = ""
    variant: str = ""

    @property
    def said(self) -> Said:
        calls = (ToolCall(str(i), name, arguments) for i, (name, arguments) in enumerate(self.calls))
        return Said(self.content, self.reasoning, tuple(calls))


PARIS = '{"city": "Paris", "days": 3}'
QUOTED = '{"city": "a \\"b\\" {[</tool>"}'
FORMS = (
    Form(
        "hermes",
        "<tool_call>\n",
        'Let me see.\n<tool_call>\n{"name": "get_weather", "arguments": ' + PARIS + "}\n</tool_call>\n"
        '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
        "Let me see.",
        (("get_weather", PARIS), ("now", "{}")),
    ),
    Form(
        "hermes",
        "<tool_call>",
        '<tool_call>\n{"name": "get_weather", "arguments": ' + QUOTED + "}\n</tool_call>",
        "",
        (("get_weather", QUOTED),),
        variant="quotes",
    ),
    Form(
        "llama3_json",
        '<|start_header_id|> {"name": function name, "parameters": dictionary',
        '{"name": "get_weather", "parameters": ' + PARIS + '}; {"name": "now", "parameters": {}}',
        "",
        (("get_weather", PARIS), ("now", "{}")),
    ),
    Form(
        "llama3_json",
        '<|start_header_id|> "parameters": \'',
        '<|python_tag|>{"name": "get_weather", "parameters": ' + PARIS + "}",
        "",
        (("get_weather", PARIS),),
        variant="tag",
    ),
    Form(
        "phi4_mini_json",
        "<|tool|>",
        'functools[{"name": "get_weather", "arguments": ' + PARIS + '}, {"name": "now", "arguments": {}}]',
        "",
        (("get_weather", PARIS), ("now", "{}")),
    ),
    Form(
        "mistral",
        "[TOOL_CALLS]",
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": '
        + PARIS
        + '}, {"name": "now", "arguments": {}}]',
        "",
        (("get_weather", PARIS), ("now", "{}")),
    ),
    Form(
        "mistral",
        "[TOOL_CALLS] [ARGS]",
        "Wait.[TOOL_CALLS]get_weather[ARGS]" + PARIS + "[TOOL_CALLS]now[ARGS]{}",
        "Wait.",
        (("get_weather", PARIS), ("now", "{}")),
        variant="named",
    ),
    Form(
        "deepseek_v3",
        "<｜tool▁calls▁begin｜> ```json",  # noqa: RUF001
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"  # noqa: RUF001
        + PARIS
        + "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```"  # noqa: RUF001
        "<｜tool▁call▁end｜><｜tool▁calls▁end｜>",  # noqa: RUF001
        "",
        (("get_weather", PARIS), ("now", "{}")),
    ),
    Form(
        "deepseek_v31",
        "<｜tool▁calls▁begin｜>",  # noqa: RUF001
        "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>"  # noqa: RUF001
        + PARIS
        + "<｜tool▁call▁end｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>"  # noqa: RUF001
        "<｜tool▁calls▁end｜>",  # noqa: RUF001
        "Hm.",
        (("get_weather", PARIS), ("now", "{}")),
    ),
    Form(
        "pythonic",
        "[func_name1(params_name1=params_value1)]",
        '[get_weather(city="a \\"b\\" (c)", days=3, hourly=True, near=["x", "y"]), now()]',
        "",
        (
            ("get_weather", '{"city": "a \\"b\\" (c)", "days": 3, "hourly": true, "near": ["x", "y"]}'),
            ("now", "{}"),
        ),
    ),
    Form(
        "llama4_pythonic",
        "<|header_start|> [func_name1(",
        '<|python_start|>[get_weather(city="Paris", unit="C")]<|python_end|>',
        "",
        (("get_weather", '{"city": "Paris", "unit": "C"}'),),
    ),
    Form(
        "qwen3_coder",
        "<tool_call> <function=",
        'So:\n<tool_call>\n<function=get_weather>\n<parameter=city>\nnew "York"\n\n</parameter>\n'
        "<parameter=days>\n3\n</parameter>\n<parameter=unit>\nF\n</parameter>\n</function>\n</tool_call>\n"
        "<tool_call>\n<function=now>\n</function>\n</tool_call>",
        "So:",
        (("get_weather", '{"city": "new \\"York\\"\\n", "days": 3, "unit": "F"}'), ("now", "{}")),
    ),
    Form(
        "functiongemma",
        "<start_function_call>",
        '<start_function_call>call:get_weather{city:<escape>a "b", {c}<escape>,days:3,hourly:true,'
        "near:[<escape>x<escape>,<escape>y<escape>]}<end_function_call>"
        "<start_function_call>call:now{}<end_function_call>",
        "",
        (
            ("get_weather", '{"city": "a \\"b\\", {c}", "days": 3, "hourly": true, "near": ["x", "y"]}'),
            ("now", "{}"),
        ),
    ),
    Form(
        "gemma4",
        "<|tool_call>",
        'Yes.<|tool_call>call:get_weather{city:<|"|>Paris<|"|>,unit:<|"|>C<|"|>}<tool_call|>',
        "Yes.",
        (("get_weather", '{"city": "Paris", "unit": "C"}'),),
    ),
    Form(
        "openai",
        "<|channel|>analysis<|message|>",
        "<|channel|>analysis<|message|>The user asks.<|end|><|start|>assistant"
        "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>" + PARIS,
        "",
        (("get_weather", PARIS),),
        "The user asks.",
    ),
    Form(
        "openai",
        "<|channel|>analysis<|message|>",
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now"
        "<|channel|>commentary json<|message|>{}",
        "I look.",
        (("now", "{}"),),
        variant="recipient first",
    ),
    Form(
        "openai",
        "<|channel|>analysis<|message|>",
        "<|channel|>analysis<|message|>Easy.<|end|><|start|>assistant<|channel|>final<|message|>Hello.",
        "Hello.",
        (),
        "Easy.",
        variant="no call",
    ),
)
