"""Tools over HTTP, by OpenAI's own client: which are called, how that is told, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.engine.helpers import load
from tests.serving.harness import MODEL, Served, running
from tests.serving.tools import HERMES, MESSAGES, TOOLS, check_call, in_one, streamed, tool, write

NAMED = {"type": "function", "function": {"name": "weather"}}
BROKEN = {"id": "a", "function": {"name": "f", "arguments": "{"}}
ENOUGH = 300


@pytest.fixture(scope="module")
def calling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A model whose template has Hermes' form, with drafts of n-grams."""
    path = write(tmp_path_factory.mktemp("calling"), HERMES, added=("<tool_call>", "</tool_call>"))
    with running(load(path, "ngram", num_speculative_tokens=3)) as served:
        yield served


def ask(served: Served, *, stream: bool = False, **fields: Any) -> Any:
    given: dict[str, Any] = {"model": MODEL, "messages": MESSAGES, "tools": TOOLS, "max_tokens": ENOUGH}
    answer = served.client().chat.completions.create(**given | {"seed": 1} | fields, stream=stream)
    return streamed(answer) if stream else answer


@pytest.mark.parametrize("choice", ["required", NAMED])
@pytest.mark.parametrize("seed", range(6))
def test_calls_that_have_to_be(calling: Served, choice: Any, seed: int) -> None:
    """Each parses and fits; the stream tells the same, and so does plain decoding."""
    fields = {"tool_choice": choice, "seed": seed, "parallel_tool_calls": False}
    answer = ask(calling, **fields)
    (call,) = answer.choices[0].message.tool_calls
    check_call(call)
    assert answer.choices[0].message.content is None
    assert answer.choices[0].finish_reason == ("stop" if choice is NAMED else "tool_calls")
    if choice is NAMED:
        assert call.function.name == "weather"
    told = in_one(answer)
    assert ask(calling, stream=True, **fields) == told
    assert in_one(ask(calling, extra_body={"num_speculative_tokens": 0}, **fields)) == told


def test_auto_binds_from_the_mark_on(calling: Served) -> None:
    """A model that is pushed to the mark and to the end writes text, then calls that parse."""
    tokenizer = calling.llm.tokenizer
    push = {str(tokenizer.token_to_id("<tool_call>")): 8, str(tokenizer.eos_token_id): 6}
    kinds = set()
    for seed in range(8):
        answer = ask(calling, seed=seed, logit_bias=push)
        told = in_one(answer)
        assert ask(calling, seed=seed, logit_bias=push, stream=True) == told
        assert "<tool_call>" not in told["content"]
        assert told["reason"] == ("tool_calls" if told["calls"] else "stop")
        for call in answer.choices[0].message.tool_calls or ():
            check_call(call)
        kinds.add((bool(told["content"]), bool(told["calls"])))
    assert kinds == {(True, True), (False, True), (True, False), (False, False)}


def test_auto_may_answer(calling: Served) -> None:
    never = {str(calling.llm.tokenizer.token_to_id("<tool_call>")): -100}
    answer = ask(calling, logit_bias=never, max_tokens=20)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content


def test_none_calls_nothing(calling: Served) -> None:
    mark = calling.llm.tokenizer.token_to_id("<tool_call>")
    answer = ask(calling, tool_choice="none", logit_bias={str(mark): 100}, max_tokens=20)
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason in ("stop", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cut_off(calling: Served, stream: bool) -> None:
    """As a whole it is text; a stream, which has begun to tell it, ends in the middle of its arguments."""
    told = ask(calling, tool_choice=NAMED, max_tokens=50, stream=stream)
    told = told if stream else in_one(told)
    assert told["reason"] == "length"
    if stream:
        ((_, name, arguments),) = told["calls"]
        assert name == "weather"
        assert arguments.startswith('{"unit": "')
    else:
        assert not told["calls"]
        assert told["content"].startswith('<tool_call>\n{"name": "weather", "arguments": {"unit": "')


def test_ids_of_a_seeded_request_are_the_same(calling: Served) -> None:
    def ids(**fields: Any) -> list[str]:
        answer = ask(calling, tool_choice="required", n=2, **fields)
        return [call.id for choice in answer.choices for call in choice.message.tool_calls]

    assert ids() == ids()
    other = ids(messages=[{"role": "user", "content": "ho"}])
    unseeded = ids(seed=None) + ids(seed=None)
    every = ids() + other + unseeded
    assert len(set(every)) == len(every)


def test_a_conversation_with_results(calling: Served) -> None:
    """Calls are sent back, with what they came to; the template lays out their arguments as values."""
    answer = ask(calling, tool_choice=NAMED)
    message = answer.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "rain"}
    again = ask(calling, messages=[*MESSAGES, message.model_dump(), result], max_tokens=4)
    prompt = calling.service.prompts.text_of(_prompt(calling, [*MESSAGES, message.model_dump(), result]))
    arguments = message.tool_calls[0].function.arguments
    assert '<tool_call>\n{"name": "weather", "arguments": ' + arguments + "}\n</tool_call>" in prompt
    assert "<|im_start|>tool\nrain<|im_end|>" in prompt
    assert again.usage.prompt_tokens == len(_prompt(calling, [*MESSAGES, message.model_dump(), result]))


def _prompt(served: Served, messages: Any) -> list[int]:
    answer = served.post(
        "/v1/chat/completions", messages=messages, tools=TOOLS, max_tokens=1, return_token_ids=True
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["prompt_token_ids"])


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_and_logprobs_of_calls(calling: Served, stream: bool) -> None:
    """Each token is told once, whatever of its text is."""
    fields = {"tool_choice": NAMED, "logprobs": True, "extra_body": {"return_token_ids": True}}
    given: dict[str, Any] = {
        "model": MODEL,
        "messages": MESSAGES,
        "tools": TOOLS,
        "max_tokens": ENOUGH,
        "seed": 1,
    }
    result: Any = calling.client().chat.completions.create(**given | fields, stream=stream)
    choices = [choice for chunk in (result if stream else [result]) for choice in chunk.choices]
    tokens = [token for choice in choices for token in getattr(choice, "token_ids", None) or ()]
    entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    assert len(tokens) == len(entries)
    text = calling.llm.tokenizer.decode(tokens)
    assert text.startswith('<tool_call>\n{"name": "weather"')


def test_a_format_of_the_answer_stands_beside_calls(calling: Served) -> None:
    """Without a call the answer fits its format; with one it is a call."""
    mark = str(calling.llm.tokenizer.token_to_id("<tool_call>"))
    choice: dict[str, Any] = {"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}
    assert ask(calling, logit_bias={mark: -100}, **choice).choices[0].message.content in ("yes", "no")
    called = ask(calling, logit_bias={mark: 100}, parallel_tool_calls=False, **choice).choices[0]
    assert called.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        (
            {"tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice",
            "are weather, now, say",
        ),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools", "'weather' more than once"),
        ({"tools": [tool("a b")]}, "tools.0.function.name", "pattern"),
        ({"tools": [{"type": "web_search"}]}, "tools.0.type", "'function'"),
        (
            {"extra_body": {"structured_outputs": {"grammar": 'root ::= "a"'}}},
            "structured_outputs",
            "no room",
        ),
        ({"extra_body": {"ignore_eos": True}}, "ignore_eos", "ends with EOS"),
        ({"reasoning_effort": "low"}, "reasoning_effort", "not known to the model's chat template"),
        ({"extra_body": {"chat_template_kwargs": {"messages": 1}}}, None, "an argument of its own"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [BROKEN]}]},
            "messages",
            "messages[0].tool_calls[0].function.arguments is not JSON",
        ),
    ],
)
def test_what_cannot_be(calling: Served, fields: dict[str, Any], param: str | None, reason: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(calling, **fields)
    assert refused.value.param == param
    assert reason in refused.value.message


def test_a_strict_schema_that_cannot_be_enforced(calling: Served) -> None:
    """Without `strict` the rest of the schema is."""
    odd = tool(
        "odd",
        it={"type": "string", "maxLength": 2, "contentEncoding": "base64"},
        no={"not": {"type": "null"}},
    )
    loose = ask(calling, tools=[odd], tool_choice="required")
    assert loose.choices[0].message.tool_calls[0].function.name == "odd"
    odd["function"]["strict"] = True
    with pytest.raises(openai.BadRequestError, match="tools cannot be used: "):
        ask(calling, tools=[odd])
