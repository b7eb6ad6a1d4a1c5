"""What lines do to a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
from outrider.cli.conversation import Reply, Talk
from outrider.errors import ConfigError, RequestError
from outrider.outputs import Increment
from tests.engine.helpers import load

SYSTEM = {"role": "system", "content": "be brief"}


@pytest.fixture(scope="module")
def llm(target: str) -> LLM:
    return load(target, "ngram", max_model_len=256)


@pytest.fixture
def talk(llm: LLM) -> Talk:
    return Talk(llm, SamplingParams(temperature=0, max_tokens=8), "be brief", clock=ticking())


def ticking() -> Callable[[], float]:
    """A second passes between any two looks at it."""
    return map(float, count()).__next__


def said(talk: Talk, question: str) -> str:
    return "".join(increment.text for increment in talk.ask(question))


def test_an_answer_is_the_models_and_stays(talk: Talk, llm: LLM) -> None:
    first = said(talk, "the end")
    asked = [SYSTEM, {"role": "user", "content": "the end"}]
    params = SamplingParams(temperature=0, max_tokens=8)
    assert first == llm.chat(asked, params, use_tqdm=False)[0].outputs[0].text
    assert talk.messages == [*asked, {"role": "assistant", "content": first}]
    asked = [*talk.messages, {"role": "user", "content": "on"}]
    assert said(talk, "on") == llm.chat(asked, params, use_tqdm=False)[0].outputs[0].text


def test_one_that_is_left_stays_as_far_as_it_came(talk: Talk, llm: LLM) -> None:
    whole = said(talk, "the end")
    talk.obey("/clear")
    steps = talk.ask("the end")
    begun = next(steps).text
    steps.close()
    assert talk.messages[-1] == {"role": "assistant", "content": begun}
    assert whole.startswith(begun)
    assert whole != begun
    assert not llm.engine.unfinished
    assert said(talk, "on")  # and the engine goes on


def test_a_question_that_cannot_be_answered_is_forgotten(talk: Talk) -> None:
    with pytest.raises(RequestError, match="max_model_len"):
        said(talk, "the end " * 300)
    assert talk.messages == [SYSTEM]


def test_set_changes_the_answers_to_come(talk: Talk) -> None:
    assert talk.obey("/set max_tokens 3") == "max_tokens = 3"
    said(talk, "the end")
    assert talk.answer.tokens <= 3
    assert talk.obey("/set num_speculative_tokens 0") == "num_speculative_tokens = 0"
    said(talk, "the end the end the end")
    assert talk.answer.drafts.drafted == 0
    assert talk.obey("/set num_speculative_tokens auto") == "num_speculative_tokens = auto"
    assert talk.obey("/set stop and so") == "stop = ('and so',)"
    lines = talk.obey("/set").splitlines()
    assert {"temperature = 0.0", "max_tokens = 3", "stop = ('and so',)", "seed = none"} <= set(lines)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("/set temprature 1", "did you mean 'temperature'"),
        ("/set temperature -1", "temperature = -1"),
        ("/set temperature", "/set temperature needs a value, as in"),
        ("/set n 2", "/set has no argument 'n'"),
        ("/reset", "/reset is no command; /help shows those that there are"),
        ("/save", "/save needs the name of a file"),
        ("/save /no/such/folder/a.md", "'/no/such/folder/a.md' cannot be written: No such file or directory"),
    ],
)
def test_what_is_wrong_is_said_and_changes_nothing(talk: Talk, line: str, reason: str) -> None:
    before = talk.obey("/set")
    with pytest.raises(ConfigError) as caught:
        talk.obey(line)
    assert reason in str(caught.value)
    assert talk.obey("/set") == before


def test_system_and_clear_begin_anew(talk: Talk) -> None:
    said(talk, "the end")
    talk.obey("/clear")
    assert talk.messages == [SYSTEM]
    talk.obey("/system be long")
    assert talk.messages == [{"role": "system", "content": "be long"}]
    talk.obey("/system")
    assert talk.messages == []


def test_save(talk: Talk, tmp_path: Path) -> None:
    answer = said(talk, "the end")
    assert talk.obey(f"/save {tmp_path}/talk.json") == f"written: {tmp_path}/talk.json"
    assert json.loads((tmp_path / "talk.json").read_text()) == talk.messages
    talk.obey(f"/save {tmp_path}/talk.md")
    assert (tmp_path / "talk.md").read_bytes().decode() == (
        f"## system\n\nbe brief\n\n## user\n\nthe end\n\n## assistant\n\n{answer}\n"
    )


def increment(tokens: int, drafted: int = 0, accepted: int = 0) -> Increment:
    return Increment("", 0, tuple(range(tokens)), (), drafted, accepted, None, None)


def test_a_summary_counts_what_came_after_the_first_step() -> None:
    answer = Reply()
    for step, now in ((increment(1), 0.5), (increment(4, 3, 3), 1.5), (increment(3, 4, 2), 2.5)):
        answer = answer.grown(step, now)
    assert answer.summary == "8 tokens, 3.5 tokens/s, 62% drafted, first after 0.50 s"
    assert Reply().grown(increment(1), 2.0).summary == "1 token, 0% drafted, first after 2.00 s"
    assert Reply().summary == "0 tokens"
