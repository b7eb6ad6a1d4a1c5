"""The soak benchmark, short: no answer is lost or mixed up with another, and nothing is left behind."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from benchmarks.soak import Answer, Tally, differences, plans, soak, still_held
from outrider import LLM
from tests.engine.helpers import BLOCK, load
from tests.serving.harness import running

PROMPTS = ("the end", "on and on and on and on", "in the beginning there was an end of it all, or " * 3)


@pytest.fixture(scope="module")
def tally(target: str) -> Tally:
    """Of 24 clients at a server with room for 12, and so few blocks that requests are preempted."""
    llm = load(target, "ngram", max_num_seqs=8, kv_cache_memory=40 * BLOCK, max_model_len=160)
    with running(llm, max_queue=4) as served:

        def going_on(tally: Tally) -> bool:
            return len(tally.answers) < 150

        tally = asyncio.run(soak(served.url, plans(PROMPTS, 40), clients=24, going_on=going_on))
        served.until_idle()
        assert still_held(httpx.get(f"{served.url}/metrics").text) == []
    return tally


def test_every_answer_is_the_offline_engines(tally: Tally, offline: LLM) -> None:
    assert tally.unforeseen == []
    assert differences(tally.answers, offline) == []
    complete = [answer for answer in tally.answers if answer.complete]
    assert {answer.plan for answer in complete} == set(plans(PROMPTS, 40))
    assert len(complete) < len(tally.answers)
    assert tally.statuses[200] == len(tally.answers)
    assert tally.statuses[400] > 0
    assert tally.statuses[429] > 0


def test_a_wrong_answer_is_found(tally: Tally, offline: LLM) -> None:
    """Planted: a request gets another's answer."""
    for complete in (True, False):
        answers = [a for a in tally.answers if a.complete is complete and len(a.token_ids) > 2]
        one = answers[0]
        other = next(a for a in answers if a.token_ids[:3] != one.token_ids[:3])
        swapped = Answer(one.plan, other.token_ids, other.text, complete)
        assert len(differences([swapped], offline)) == 1
