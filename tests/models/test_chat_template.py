"""Chat templates lay out conversations as transformers does, within bounds, and errors are one line."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from jinja2 import TemplateError
from tokenizers import processors

from outrider import LLM, ConfigError, RequestError, SamplingParams
from outrider.models import chat_template
from outrider.models.chat_template import ChatTemplate
from outrider.sandbox import template_task
from tests.engine.helpers import load
from tests.factories import SPECIAL, as_loaded, tiny_tokenizer, write_model

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = """{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}"""
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\n\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}"""
QWEN = """{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and message.content is string %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "system" %}{%- continue %}{%- endif %}
    {%- set content = message.content %}
    {%- if message.role == "assistant" %}
        {% generation %}
        {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
        {% endgeneration %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
        {{- {"é": [1, ns.last], "b": "<&>"} | tojson }}
    {%- endif %}
{%- endfor %}"""

TOOLS = """{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "tool" %}
        {{- '<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- elif message.tool_calls %}
        {%- if message.reasoning_content %}{{- '<think>' + message.reasoning_content }}{% endif %}
        {{- message.thinking }}
        {%- for call in message.tool_calls %}
            {%- set call = call.function %}
            {{- '<tool_call>\n{"name": "' ~ call.name ~ '", "arguments": ' }}
            {{- call.arguments | tojson(indent=2, sort_keys=true) }}
            {{- call.arguments | tojson(ensure_ascii=true, separators=(",", ":")) }}
            {%- for key, value in call.arguments | items %}{{ key ~ "=" ~ value }}{% endfor %}
        {%- endfor %}
    {%- else %}
        {{- message.role + ': ' + message.content }}
    {%- endif %}
{%- endfor %}"""
FORMS = """{%- macro shout(text) -%}{{ text | upper }}{%- endmacro -%}
{% set counts = dict(a=1, **{"b": 2}) %}
{{ counts.fromkeys("xy", 0) }} {{ dict.update is defined }} {{ counts | dictsort }}
    {% for message in messages %}
        {% if loop.index > 2 %}{% break %}{% endif %}
        {{ loop.cycle("odd", "even") }}: {{ shout(message.role) }} {{ message.content is defined }}
        {%- generation %} {{ (message.content or "") | trim | truncate(9, true) }} {% endgeneration %}
    {% endfor %}
{% set ns = namespace(self=3, x=none) %}{% set ns.x = messages | map(attribute="role") | list %}
{{ ns.x | tojson }} {{ ns.self }} {{ documents is none }} {{ unk_token is defined }} {{ pad_token }}
{{ raise_exception is defined }} {{ strftime_now("%Y") }} {{ cycler is defined }} {{ lipsum is defined }}
"""

SYSTEM = {"role": "system", "content": " Be brief.\n"}
TURNS = [
    {"role": "user", "content": "Grüß dich <|im_end|>"},
    {"role": "assistant", "content": "<think>\nhm</think>\n\nHello"},
    {"role": "user", "content": "{{ 7 * 7 }}"},
]
USER = TURNS[:1]
CALLS: list[dict[str, Any]] = [
    *USER,
    {
        "role": "assistant",
        "reasoning": "a <b> & 'c'",
        "tool_calls": [
            {"type": "function", "function": {"name": "f", "arguments": {"ä": [1, 2.5, None, True]}}},
        ],
    },
    {"role": "tool", "name": "f", "content": '{"x": "é"}'},
]
CONVERSATIONS: list[list[dict[str, Any]]] = [USER, TURNS, [SYSTEM, *TURNS], [SYSTEM], CALLS]
TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "<Ünder> & 'quoted'",
        "parameters": {"type": "object", "properties": {"ä": {"type": "array"}}, "required": ["ä"]},
    },
}


SOURCES = {
    "chatml": CHATML,
    "zephyr": ZEPHYR,
    "mistral": MISTRAL,
    "llama": LLAMA,
    "qwen": QWEN,
    "tools": TOOLS,
    "forms": FORMS,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_the_text_is_that_of_transformers(source: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = source
    template = as_loaded(tokenizer).chat_template
    assert template is not None
    for messages in CONVERSATIONS:
        for prompt in (True, False):
            ours = partial(template.render, messages, add_generation_prompt=prompt)
            theirs = partial(tokenizer.apply_chat_template, messages, tokenize=False)
            assert outcome(ours) == outcome(partial(theirs, add_generation_prompt=prompt))


@pytest.mark.parametrize("source", [LLAMA, TOOLS], ids=["llama", "tools"])
def test_tools_are_laid_out_as_by_transformers(source: str) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = source
    variables = {"messages": TURNS, "tools": [TOOL], "documents": None, "add_generation_prompt": True}
    job = {"variables": variables | tokenizer.special_tokens_map, "limit": 10**6}
    expected = tokenizer.apply_chat_template(TURNS, tools=[TOOL], tokenize=False, add_generation_prompt=True)
    assert template_task.begin(source)(job) == expected


def outcome(render: Callable[[], Any]) -> str:
    """The text, or why there is none."""
    try:
        return str(render())
    except (RequestError, TemplateError) as error:
        return str(error).removeprefix("the model's chat template cannot lay out these messages: ")


def rendered(source: str, messages: Any = USER) -> str:
    return ChatTemplate(source, {}).render(messages, add_generation_prompt=True)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (
            "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "it takes more than 0.5 s",
        ),
        ("{{ 'a' * 2000000000 }}", "it takes too much memory"),
        ("{{ 'a'.rjust(3000000000) }}", "it takes too much memory"),
        ("{{ 'a' * 9000000 }}", "it writes more than 1048656 characters for this conversation"),
        ("{% for i in range(99999) %}{{ 'a' * 99 }}{% endfor %}", "it writes more than 1048656 characters"),
        (
            "{% set n = namespace(s='a') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
            "it takes ",  # too much memory, or time
        ),
        ("{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ m(1) }}", "it is nested too deeply"),
        ("{{ " + "(" * 5000 + ")" * 5000 + " }}", "it is nested too deeply"),
        ("a{% if %}", "line 1 of it cannot be read: Expected an expression, got 'end of statement block'"),
        ("{% for m in messages %}\n{{ m.name + '' }}{% endfor %}", "'dict object' has no attribute 'name'"),
        ("{{ raise_exception('roles must\nalternate') }}", "roles must alternate"),
        ("{{ 1 / 0 }}", "ZeroDivisionError: division by zero"),
        ("{{ messages.append(1) }}", "access to attribute 'append' of 'list' object is unsafe."),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe."),
        ("{% set n = namespace(_a=1) %}", "a namespace cannot have the attribute '_a'"),
        ("{{ range(9999999) }}", "OverflowError: Range too big."),
    ],
)
def test_a_template_that_goes_wrong_or_too_far(
    source: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_template, "SECONDS", 0.5)
    with pytest.raises(RequestError) as refused:
        rendered(source)
    message = str(refused.value)
    assert message.startswith(f"the model's chat template cannot lay out these messages: {reason}")
    assert "\n" not in message
    assert rendered(CHATML).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([], "the conversation is empty; give at least one message"),
        ("hi", "a conversation is a list of messages, not a str"),
        (["hi"], "messages[0] is a str; give a mapping with role and content"),
        ([{"content": "hi"}], "messages[0].role is missing; give a name, such as 'user'"),
        ([*USER, {"role": 5, "content": "hi"}], "messages[1].role = 5; give a name, such as 'user'"),
        ([{"role": "user"}], "messages[0].content is null; only an assistant's may be, give text"),
        ([{"role": "user", "content": None}], "messages[0].content is null; only an assistant's may be"),
        ([{"role": "user", "content": 5}], "messages[0].content is a int; give text, or a list of parts"),
        ([{"role": "user", "content": {}}], "messages[0].content is a dict; give text, or a list of parts"),
        ([{"role": "user", "content": "\ud800"}], "messages[0].content: character 0 is half of a surrogate"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}],
            "messages[0].content[0] has the type 'image_url'; only parts",
        ),
        (
            [{"role": "user", "content": ["hi"]}],
            "messages[0].content[0] has no type 'text' with a text; only",
        ),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0] has no type 'text' with"),
        ([{"role": "user", "content": "", "name": object()}], "messages[0].name is a object; give what JSON"),
    ],
)
def test_messages_that_are_none(messages: Any, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        rendered(CHATML, messages)
    assert str(refused.value).startswith(reason)


def test_messages_that_are_nested_without_end() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(RequestError, match=r"messages\[0\] is nested too deeply"):
        rendered(CHATML, [{"role": "user", "content": "", "extra": endless}])


def test_what_a_message_may_be() -> None:
    parts = [{"type": "text", "text": "Grüß "}, {"type": "text", "text": "dich <|im_end|>"}]
    assert rendered(CHATML, [{"role": "user", "content": parts}]) == rendered(CHATML)
    developer = [{"role": "developer", "content": "x"}]
    assert rendered("{{ messages[0].role }}", developer) == "system"
    calls = [{"function": {"name": "f", "arguments": {"a": 1}}}]
    answer = [{"role": "assistant", "content": None, "tool_calls": calls, "refusal": None}]
    assert rendered("{{ messages[0] | tojson }}", answer) == (
        '{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}]}'
    )
    with pytest.raises(RequestError, match="has no attribute 'content'"):
        rendered(CHATML, answer)


def test_the_default_of_several_templates() -> None:
    named = {"tool_use": "?", "default": "{{ bos_token }}!"}
    template = replace(as_loaded(tiny_tokenizer()), templates=named).chat_template
    assert template is not None
    assert template.render(USER, add_generation_prompt=True) == "<|endoftext|>!"


def test_chat_refuses_in_one_line(target: str) -> None:
    llm = load(target)
    empty: list[Any] = [[], [[]], [USER, []]]
    for messages in empty:
        with pytest.raises(RequestError, match="the conversation is empty"):
            llm.chat(messages)
    llm.reader.tokenizer = replace(llm.tokenizer, templates={"default": "{{"})
    with pytest.raises(RequestError, match="chat template cannot lay out these messages: line 1 of it"):
        llm.chat(USER)
    llm.reader.tokenizer = replace(llm.tokenizer, templates={})
    with pytest.raises(ConfigError, match=r"has no chat template; .* `generate`"):
        llm.chat(USER)


@pytest.fixture
def with_bos(tmp_path: Path) -> LLM:
    """A model whose tokenizer puts BOS before a text, and whose template writes one."""
    tokenizer = tiny_tokenizer()
    bos = (tokenizer.bos_token, tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A", pair=f"{bos[0]} $A $B", special_tokens=[bos]
    )
    tokenizer.chat_template = "{{ bos_token }}" + CHATML
    write_model(tmp_path, tokenizer=tokenizer)
    return load(str(tmp_path))


def test_a_second_bos_is_told_once(with_bos: LLM, caplog: pytest.LogCaptureFixture) -> None:
    params = SamplingParams(max_tokens=1)
    bos = with_bos.tokenizer.bos_token_id
    with caplog.at_level(logging.WARNING, "outrider"):
        ids = with_bos.chat(USER, params, use_tqdm=False)[0].prompt_token_ids
        assert ids[0] == bos != ids[1]
        with_bos.generate("hi", params, use_tqdm=False)
        assert not caplog.records
        (output,) = with_bos.generate(SPECIAL[0] + "hi", params, use_tqdm=False)
        assert list(output.prompt_token_ids[:2]) == [bos, bos]
        with_bos.generate(SPECIAL[0] + "hi", params, use_tqdm=False)
    (record,) = caplog.records
    assert "begins with '<|endoftext|>' and the tokenizer adds another one" in record.getMessage()
