"""Fields that are not read: taken and told where they change no answer, and else refused by name."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from outrider.serving.fields import CHANGING, HARMLESS
from tests.engine.helpers import load
from tests.serving.harness import Served, running
from tests.serving.test_refusals import CHAT, HI, TEXT, error_of

IGNORED = "x-outrider-ignored"


def ask(served: Served, path: str = TEXT, /, **fields: Any) -> Any:
    prompt: dict[str, Any] = {"prompt": "on"} if path == TEXT else {"messages": HI}
    return served.post(path, **prompt | {"max_tokens": 2, "temperature": 0} | fields)


@pytest.mark.parametrize(
    ("path", "fields", "named"),
    [
        (CHAT, {"store": True, "metadata": {"a": "b"}}, "store, metadata"),
        (TEXT, {"service_tier": "auto", "prompt_cache_key": "k"}, "service_tier, prompt_cache_key"),
        (CHAT, {"messages": [HI[0] | {"created_at": 5}]}, "messages.created_at"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": 1}]}]},
            "messages.content.cache_control",
        ),
        (
            TEXT,
            {"stream": True, "stream_options": {"include_obfuscation": True}},
            "stream_options.include_obfuscation",
        ),
        (TEXT, {"my_own": 1, "x\r\nSet-Cookie: y": 2}, "my_own, x%0D%0ASet-Cookie%3A%20y"),
        (TEXT, {f"field {number}": 1 for number in range(40)}, ", ..."),
        (TEXT, {"z" * 200: 1}, "z" * 64),
        (TEXT, {"": 1}, '""'),
    ],
)  # fmt: skip
def test_what_changes_no_answer_is_taken_and_named(
    served: Served, path: str, fields: dict[str, Any], named: str
) -> None:
    answer = ask(served, path, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.headers[IGNORED].endswith(named)
    assert len(answer.headers[IGNORED]) < 32 * 70


@pytest.mark.parametrize("name", sorted(HARMLESS))
def test_the_answer_is_the_same_with_harmless_fields(served: Served, name: str) -> None:
    plain, with_it = ask(served), ask(served, TEXT, **{name: "auto"})
    assert plain.json()["choices"] == with_it.json()["choices"]


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False}, {"metadata": None}, {"suffix": None}, {"use_beam_search": False}, {"echo": False},
        {"tool_choice": "none"}, {"modalities": ["text"]}, {"verbosity": "medium"}, {"mirostat": 0},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("path", [TEXT, CHAT])
def test_what_asks_for_nothing_is_not_worth_a_word(served: Served, path: str, fields: dict[str, Any]) -> None:
    answer = ask(served, path, **fields)
    assert answer.status_code == 200, answer.text
    assert IGNORED not in answer.headers


@pytest.mark.parametrize("name", sorted(CHANGING.keys() - {"echo", "prompt", "best_of"}))
def test_what_would_change_the_answer_is_refused(served: Served, name: str) -> None:
    """A number that is neither 0 nor 1, of which some would be nothing."""
    error = error_of(ask(served, TEXT, **{name: 7}), 400)
    assert (error["param"], error["code"]) == (name, "unsupported_field")
    assert error["message"] == f"{name} is not supported; leave it out"


@pytest.mark.parametrize(
    ("fields", "param", "meant"),
    [
        ({"temprature": 0.5}, "temprature", "temperature"),
        ({"maxTokens": 5}, "maxTokens", "max_tokens"),
        ({"max-tokens": 5}, "max-tokens", "max_tokens"),
        ({"max_new_tokens": 5}, "max_new_tokens", "max_tokens"),
        ({"Seed": None}, "Seed", "seed"),
        ({"use_beam_serch": True}, "use_beam_serch", "use_beam_search"),
        ({"structured_outputs": {"regexp": "a"}}, "structured_outputs.regexp", "regex"),
        (
            {"stream": True, "stream_options": {"include_usages": True}},
            "stream_options.include_usages",
            "include_usage",
        ),
    ],
)
def test_a_typing_error_is_refused(served: Served, fields: dict[str, Any], param: str, meant: str) -> None:
    """The answer would have been another one."""
    error = error_of(ask(served, **fields), 400)
    assert error["param"] == param
    assert error["message"] == f"{param} is not supported; leave it out, or did you mean {meant!r}?"


def test_names_that_are_no_text(served: Served) -> None:
    """Half of a surrogate pair, which JSON can hold and UTF-8 cannot."""
    headers = {"Content-Type": "application/json"}
    taken = b'{"prompt": "on", "max_tokens": 1, "\\ud800": 1}'
    assert served.http.post(TEXT, content=taken, headers=headers).headers[IGNORED] == "%3F"
    refused = b'{"prompt": "on", "temprature\\ud800": 1}'
    error = error_of(served.http.post(TEXT, content=refused, headers=headers), 400)
    assert error["param"] == "temprature\\ud800"
    error = error_of(ask(served, TEXT, **{"temperature" + "-" * 5000: 1}), 400)
    assert len(error["param"]) < 1100


def test_names_without_end_are_refused_at_once(served: Served) -> None:
    """Comparing each with all fields would take minutes, in which the others wait."""
    error = error_of(ask(served, **dict.fromkeys(map(str, range(10**5)))), 400)
    assert error["message"].endswith("leave it out; 64 other fields of the request are not known either")
    messages = [HI[0] | {f"x{number}": 1} for number in range(10**4)]
    assert "64 other fields" in error_of(ask(served, CHAT, messages=messages), 400)["message"]
    same = [HI[0] | {"created_at": 1} for _ in range(50)]
    assert ask(served, CHAT, messages=same).status_code == 200


def test_strict(target: str) -> None:
    with running(load(target), strict=True) as served:
        refused: list[tuple[str, dict[str, Any], str]] = [
            (TEXT, {"store": True}, "store"),
            (TEXT, {"my_own": None}, "my_own"),
            (CHAT, {"messages": [HI[0] | {"created_at": 5}]}, "messages.0.created_at"),
        ]
        for path, fields, param in refused:
            error = error_of(ask(served, path, **fields), 400)
            assert (error["param"], error["code"]) == (param, "unsupported_field")
        assert ask(served, store=False, metadata={}).status_code == 200


def test_each_name_is_logged_once(target: str, caplog: pytest.LogCaptureFixture) -> None:
    with running(load(target)) as served, caplog.at_level(logging.WARNING, "outrider.requests"):
        bodies: list[dict[str, Any]] = [{"store": True}, {"store": True, "mine": 1}]
        for fields in bodies + [{f"made_up_{number}": 1} for number in range(300)]:
            assert served.post("/tokenize", prompt="on", **fields).status_code == 200
    told = [record.getMessage() for record in caplog.records if record.name == "outrider.requests"]
    ignored = [text for text in told if "is not supported and was ignored" in text]
    assert ignored[0] == "the field store is not supported and was ignored; it changes no answer"
    for name in ("store", "mine"):
        assert sum(f"the field {name} is" in text for text in ignored) == 1
    assert len(ignored) == 256  # clients make names up


def chunks_of(served: Served, path: str = TEXT, /, **fields: Any) -> list[dict[str, Any]]:
    answer = ask(served, path, stream=True, max_tokens=6, ignore_eos=True, **fields)
    events = [line.removeprefix("data: ") for line in answer.text.splitlines() if line]
    assert events.pop() == "[DONE]"
    return [json.loads(event) for event in events]


@pytest.mark.parametrize(("path", "n"), [(TEXT, 1), (TEXT, 2), (CHAT, 1)])
def test_usage_in_every_chunk(served: Served, path: str, n: int) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    *chunks, last = chunks_of(served, path, n=n, stream_options=options)
    told = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert told == sorted(told)
    assert told[0] < told[-1] == last["usage"]["completion_tokens"] == 6 * n
    for usage in (chunk["usage"] for chunk in chunks):
        assert usage["prompt_tokens"] == last["usage"]["prompt_tokens"]
        assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


@pytest.mark.parametrize("options", [{"include_usage": True}, {"continuous_usage_stats": True}], ids=str)
def test_usage_that_is_not_asked_for_in_every_chunk(served: Served, options: dict[str, bool]) -> None:
    """As in vLLM, where the second is nothing without the first."""
    chunks = chunks_of(served, stream_options=options)
    assert [chunk for chunk in chunks if chunk["choices"] and chunk.get("usage") is not None] == []
