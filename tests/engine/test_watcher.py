"""Who watches an engine is told of each step and each request, and nobody pays where nobody watches."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from outrider import LLM, Increment, RequestOutput, SamplingParams
from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.engine.scheduler import Schedule
from outrider.engine.seam import StepEngine
from outrider.engine.verify import Judged
from outrider.engine.watcher import Watcher
from tests.engine.helpers import PROMPTS, expected, load, token_ids
from tests.watchers import Record, record

PARAMS = SamplingParams(temperature=0.7, seed=1, max_tokens=20, n=2, ignore_eos=True)


def test_what_is_told_is_what_comes_out(target: str) -> None:
    """Each step is scheduled, verified and committed, and each request ends once."""
    llm = load(target, "ngram", num_speculative_tokens=3)
    recorded = record(llm)
    outputs = llm.generate(PROMPTS, PARAMS, use_tqdm=False)
    assert sorted(output.request_id for output in recorded.outputs) == sorted(o.request_id for o in outputs)
    works = [work for schedule in recorded.schedules for work in schedule.work]
    assert [judged.work for judged in recorded.judged] == works
    assert len(recorded.increments) == len(works)
    for judged, increment in zip(recorded.judged, recorded.increments, strict=True):
        assert (increment.request_id, increment.index) == (judged.work.request.id, judged.work.request.index)
        assert increment.drafted == len(judged.draft.tokens)
        assert increment.token_ids == judged.verdict.tokens[: len(increment.token_ids)]
    assert sum(increment.drafted for increment in recorded.increments) > 0
    for output in outputs:
        for completion in output.outputs:
            own = [
                i
                for i in recorded.increments
                if (i.request_id, i.index) == (output.request_id, completion.index)
            ]
            assert sum((i.token_ids for i in own), ()) == completion.token_ids


def test_the_order_of_events(target: str) -> None:
    events: list[str] = []

    class Order(Watcher):
        def scheduled(self, schedule: Schedule) -> None:
            events.append("scheduled")

        def verified(self, judged: Sequence[Judged]) -> None:
            assert not judged[0].work.request.num_output, "nothing is committed yet"
            events.append("verified")

        def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
            events.append("stepped" if engine.report.whole else "waited")
            pool = engine.ours.target.pool
            assert pool.num_free == pool.num_blocks

        def finished(self, output: RequestOutput) -> None:
            events.append("finished")

    engine = build_engine(resolve(target, device="cpu"), watchers=[Order()])
    request_id = engine.add(PROMPTS[0], SamplingParams(max_tokens=1))
    engine.step()
    engine.take(request_id)
    engine.step()
    assert events == ["scheduled", "verified", "stepped", "finished", "scheduled", "waited"]


def test_who_is_given_up_has_finished(target: str) -> None:
    llm = load(target)
    recorded = record(llm)
    stream = llm.stream(PROMPTS[0], PARAMS)
    next(stream)
    stream.close()
    (output,) = recorded.outputs
    assert output.outputs[0].finish_reason == "abort"


def test_a_watcher_that_fails_stops_nothing(target: str, caplog: pytest.LogCaptureFixture) -> None:
    """Those that are told after it are told all the same."""

    class Broken(Watcher):
        def scheduled(self, schedule: Schedule) -> None:
            raise ZeroDivisionError("planted")

        def verified(self, judged: Sequence[Judged]) -> None:
            raise ZeroDivisionError("planted")

        def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
            raise ZeroDivisionError("planted")

        def finished(self, output: RequestOutput) -> None:
            raise ZeroDivisionError("planted")

    llm = load(target)
    llm.engine.watchers.append(Broken())
    recorded = record(llm)
    for _ in range(2):
        (output,) = llm.generate(PROMPTS[0], PARAMS, use_tqdm=False)
        assert token_ids(output) == token_ids(expected(target, PROMPTS[0], PARAMS))
    assert len(recorded.outputs) == 2
    (told,) = (one for one in caplog.records if one.levelno >= logging.ERROR)
    assert "could not be watched" in told.getMessage()


def calls_of_a_step(llm: LLM) -> Counter[str]:
    """Calls of Python functions, by their names, in a step of two requests that decode."""
    calls = Counter[str]()

    def count(frame: Any, event: str, _: Any) -> None:
        if event == "call":
            calls[frame.f_code.co_qualname] += 1

    for prompt in PROMPTS[:2]:
        llm.engine.add(prompt, PARAMS.model_copy(update={"n": 1}))
    for _ in range(4):
        llm.engine.step()
    sys.setprofile(count)
    try:
        llm.engine.step()
    finally:
        sys.setprofile(None)
    return calls


def test_nobody_pays_where_nobody_watches(target: str) -> None:
    watched, bare = load(target), load(target)
    watched.engine.watchers[:] = [Record()]  # without the one that counts for `LLM.get_metrics`
    bare.engine.watchers.clear()
    more = calls_of_a_step(watched) - (alone := calls_of_a_step(bare))
    assert alone["Engine.step"] == 1
    assert "Engine._tell" not in alone
    assert more["Engine._tell"] == 3
    assert sum(more.values()) == 3 * 3, "an event is a call of `_tell`, of its lambda and of the watcher"
