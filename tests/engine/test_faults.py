"""Faults in planning and drafting cost drafts alone; one in the pass ends those for whom it fails alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from outrider import LLM, RequestOutput, RequestsFailed, SamplingParams
from outrider.drafting.base import Draft
from outrider.drafting.head import HeadDrafter
from outrider.drafting.model import ModelDrafter
from outrider.drafting.plan import Plan
from outrider.engine.async_engine import AsyncEngine
from outrider.engine.generation import TextPrompt
from outrider.engine.request import Request
from outrider.errors import INTERNAL_ERROR
from outrider.ops.choice import Change
from outrider.ops.span import Span
from tests import planted
from tests.engine.helpers import PROMPTS, drafters_of, expected, load, token_ids
from tests.fakes import overruled

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMS = SamplingParams(temperature=1.0, seed=4, max_tokens=24, ignore_eos=True)
POISON = 270
"""A token that no prompt of ours holds; what is to fail looks for it."""


def offline(llm: LLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[RequestOutput]:
    try:
        return llm.generate(prompts, params, use_tqdm=False)
    except RequestsFailed as failed:
        return [output for output in failed.outputs if output is not None]


def served(llm: LLM, prompts: Sequence[Sequence[int]], params: SamplingParams) -> list[RequestOutput]:
    async def call(engine: AsyncEngine, tokens: Sequence[int]) -> RequestOutput:
        async with engine.generate([TextPrompt(tokens)], params) as generation:
            increments = [increment async for _, increment in generation]
            told = tuple(token for increment in increments for token in increment.token_ids)
            (output,) = generation.outputs
            assert told == output.outputs[0].token_ids, "a stream is told what is in the output"
            return output

    async def run() -> list[RequestOutput]:
        engine = AsyncEngine(llm.engine, capacity=64)
        engine.start()
        try:
            outputs = await asyncio.gather(*(call(engine, tokens) for tokens in prompts))
            assert engine.stopped is None
            return outputs
        finally:
            await engine.close()

    return asyncio.run(run())


both = pytest.mark.parametrize("run", [offline, served])


def check_nothing_is_left(llm: LLM) -> None:
    engine = llm.engine
    assert not engine.unfinished
    assert not engine._groups
    assert engine.target.pool.num_free == engine.target.pool.num_blocks
    for drafter in engine.drafters.drafters:
        if isinstance(drafter, (ModelDrafter, HeadDrafter)):
            assert not drafter._tables
            assert drafter.runner.pool.num_free == drafter.runner.pool.num_blocks


def check_all_equal(target: str, outputs: Sequence[RequestOutput], params: SamplingParams = PARAMS) -> None:
    for prompt, output in zip(PROMPTS, outputs, strict=True):
        assert output.error is None
        assert token_ids(output) == token_ids(expected(target, prompt, params))


NOW_AND_THEN: Callable[[int], bool] = lambda number: number % 3 == 1  # noqa: E731
ALWAYS: Callable[[int], bool] = lambda number: True  # noqa: E731


# Where nobody ends


def model_of(llm: LLM) -> Any:
    return drafters_of(llm)[0]


PLACES: dict[str, Callable[[LLM], tuple[Any, str]]] = {
    "draft": lambda llm: (model_of(llm), "draft"),
    "verdicts": lambda llm: (model_of(llm), "observe"),
    "plans": lambda llm: (type(llm.engine.scheduler.policy), "plans"),
    "learning": lambda llm: (type(llm.engine.scheduler.policy), "observe"),
    "end": lambda llm: (type(llm.engine.scheduler.policy), "end"),
    "planning": lambda llm: (llm.engine.scheduler, "_add_drafts"),
    "shares": lambda llm: (llm.engine.scheduler, "_longest_draft"),
    "blocks of a draft": lambda llm: (llm.engine.scheduler, "_reserve_draft"),
    "lending": lambda llm: (llm.engine.lending, "observe"),
}


@both
@pytest.mark.parametrize(("fails", "late"), [(NOW_AND_THEN, True), (ALWAYS, False)])
@pytest.mark.parametrize("place", PLACES)
def test_who_is_not_to_blame_goes_on(
    target: str,
    draft: str,
    place: str,
    fails: Callable[[int], bool],
    late: bool,
    run: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """In a cache so small that some are preempted."""
    llm = load(target, draft, num_speculative_tokens=3, kv_cache_memory=100_000, max_model_len=112)
    owner, name = PLACES[place](llm)
    planted.fail(monkeypatch, owner, name, fails, late=late)
    check_all_equal(target, run(llm, PROMPTS, PARAMS))
    check_nothing_is_left(llm)
    (told,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert told.exc_info is not None


@pytest.mark.parametrize("edited", [False, True])
@pytest.mark.parametrize("at", [2, 3])
def test_a_draft_that_fails_half_way_leaves_nothing_behind(
    target: str, at: int, edited: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions that count as computed and are not would spoil drafts: the target drafts for itself here. An
    edited draft is one call a token."""
    llm = load(target, target, num_speculative_tokens=4)
    planted.fail(monkeypatch, model_of(llm).runner, "_chain", lambda number: number == at)
    params = PARAMS.model_copy(update={"logit_bias": {7: -1.0}}) if edited else PARAMS
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    check_all_equal(target, outputs, params)
    check_nothing_is_left(llm)
    assert sum(output.outputs[0].speculation.drafted for output in outputs) > 40
    for output in outputs:
        assert output.outputs[0].speculation.accepted == output.outputs[0].speculation.drafted


@pytest.mark.parametrize("name", ["draft", "read", "end"])
@pytest.mark.parametrize("fails", [NOW_AND_THEN, ALWAYS])
def test_a_head_that_fails(
    target: str, head: str, name: str, fails: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(target, head, num_speculative_tokens=3)
    planted.fail(monkeypatch, model_of(llm), name, fails, late=True)
    check_all_equal(target, llm.generate(PROMPTS, PARAMS, use_tqdm=False))
    check_nothing_is_left(llm)


def test_the_next_in_the_chain_drafts_where_one_fails(
    target: str, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(target, None, speculative_model=["ngram", draft], num_speculative_tokens=3)
    planted.fail(monkeypatch, model_of(llm), "draft")
    outputs = llm.generate(PROMPTS, PARAMS, use_tqdm=False)
    check_all_equal(target, outputs)
    assert sum(output.outputs[0].speculation.accepted for output in outputs) > 0


@both
@pytest.mark.parametrize(
    "draft_of",
    [
        lambda budget: Draft((5,) * (budget.length + 40)),
        lambda budget: Draft((9999,)),
        lambda budget: Draft((-1,)),
        lambda budget: Draft(("5",)),  # type: ignore[arg-type]
        lambda budget: None,
    ],
)
def test_drafts_that_are_none(target: str, draft_of: Any, run: Any) -> None:
    llm = load(target, "ngram", num_speculative_tokens=3, block_size=4)
    model_of(llm).draft = lambda requests, budgets: [draft_of(budget) for budget in budgets]
    check_all_equal(target, run(llm, PROMPTS, PARAMS))
    check_nothing_is_left(llm)


def test_a_plan_for_too_few_drafters(target: str, draft: str) -> None:
    llm = load(target, None, speculative_model=["ngram", draft], num_speculative_tokens=3)
    with overruled(llm, lambda plan: Plan(plan.budgets[:1])):
        check_all_equal(target, llm.generate(PROMPTS, PARAMS, use_tqdm=False))
    check_nothing_is_left(llm)


@both
def test_the_automatic_length_that_cannot_decide(
    target: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a division by zero, which a length of 2^56 once led to."""
    llm = load(target, "ngram")
    planted.fail(monkeypatch, llm.engine.scheduler.policy, "_decide")
    check_all_equal(target, run(llm, PROMPTS, PARAMS))
    check_nothing_is_left(llm)


def test_states_that_an_observer_cannot_take_are_told(target: str) -> None:
    """It writes them down; a gap would spoil what is learnt from them."""
    llm = load(target)

    class Observer:
        state_layers = (0,)

        def read(self, *_: Any) -> None:
            raise ZeroDivisionError("planted")

        def end(self, request: Any) -> None: ...

    chain = llm.engine.drafters
    chain.__init__(chain.drafters, [Observer()])  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        chain.read(None, 0, None)  # type: ignore[arg-type]


# Where one ends


@both
@pytest.mark.parametrize("drafter", [None, "ngram", "draft"])
@pytest.mark.parametrize("place", [0, 2])
def test_a_pass_that_fails_for_one_ends_that_one(
    target: str,
    drafter: str | None,
    place: int,
    run: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """POISON stands in the second chunk of its prompt, which is a whole block."""
    name = request.getfixturevalue("draft") if drafter == "draft" else drafter
    speculation = {} if name is None else {"num_speculative_tokens": 3}
    llm = load(target, name, prompt_chunk_size=16, **speculation)
    planted.fail_passes(monkeypatch, llm, lambda spans: any(POISON in span.tokens for span in spans))
    params = PARAMS.model_copy(update={"logit_bias": {POISON: -100.0}})
    poison = (*range(100, 130), POISON, *range(130, 140))
    prompts: list[Sequence[int]] = [*PROMPTS]
    prompts.insert(place, poison)
    for _ in range(2):  # the second time parts of it may be in the prefix cache
        outputs = run(llm, prompts, params)
        bad = outputs.pop(place)
        assert bad.error == INTERNAL_ERROR
        assert bad.outputs[0].finish_reason == "error"
        check_all_equal(target, outputs, params)
        check_nothing_is_left(llm)
    monkeypatch.undo()
    (output,) = run(llm, [poison], params)
    assert token_ids(output) == token_ids(expected(target, poison, params)), "nothing wrong was published"


@both
def test_drafts_that_make_the_pass_fail_are_left_out(
    target: str, draft: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(target, draft, num_speculative_tokens=3)
    planted.fail_passes(monkeypatch, llm, lambda spans: any(span.logit_rows > 1 for span in spans))
    check_all_equal(target, run(llm, PROMPTS, PARAMS))
    check_nothing_is_left(llm)


@both
def test_a_grammar_that_fails_ends_its_request_alone(
    target: str, draft: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it is asked, after some tokens; also before the step, whether it is ready."""
    llm = load(target, draft, num_speculative_tokens=3)
    prompts = [*PROMPTS[:3], (POISON, 9), *PROMPTS[3:]]

    class FaultyGrammar:
        def prepare(self, output: Sequence[int]) -> bool:
            return len(output) < 5 or 1 // 0 == 0

        ready = prepare

        def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
            self.prepare(output)
            return ()

        def forced(self, output: Sequence[int]) -> tuple[int, ...]:
            return (0,) * (not self.prepare(output))

        def count(self, output: Sequence[int], tokens: Sequence[int]) -> int:
            return len(tokens) if self.prepare(output) else 0

    def spoil(request: Request) -> None:
        if POISON in request.tokens:
            request.sampler = request.sampler.within(cast(Any, FaultyGrammar()))

    planted.spoil_requests(monkeypatch, llm, spoil)
    outputs = run(llm, prompts, PARAMS)
    bad = outputs.pop(3)
    assert bad.error == INTERNAL_ERROR
    assert len(bad.outputs[0].token_ids) == 5
    check_all_equal(target, outputs)
    check_nothing_is_left(llm)


@both
@pytest.mark.parametrize("acceptance", ["coupled", "standard"])
def test_edits_of_one_that_fail_end_that_one(
    target: str, draft: str, acceptance: str, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They fail in the drafter too, where nobody ends; and after some tokens only."""
    llm = load(target, draft, num_speculative_tokens=3, acceptance=acceptance)
    prompts = [*PROMPTS[:3], (POISON, 9), *PROMPTS[3:]]

    class FaultyEdit:
        def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
            if len(output) > 5:
                raise ZeroDivisionError("planted")
            return ()

    def spoil(request: Request) -> None:
        if POISON in request.tokens:
            object.__setattr__(request.sampler, "edits", (FaultyEdit(),))

    planted.spoil_requests(monkeypatch, llm, spoil)
    outputs = run(llm, prompts, PARAMS)
    bad = outputs.pop(3)
    assert bad.error == INTERNAL_ERROR
    assert 5 < len(bad.outputs[0].token_ids) < 24
    if acceptance == "coupled":
        check_all_equal(target, outputs)
    else:
        assert all(len(output.outputs[0].token_ids) == 24 for output in outputs)
    check_nothing_is_left(llm)


@both
def test_a_pass_that_fails_once_ends_nobody(target: str, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = load(target, "ngram", num_speculative_tokens=3)
    planted.fail(monkeypatch, llm.engine.target, "step", lambda number: number in (0, 5, 6))
    check_all_equal(target, run(llm, PROMPTS, PARAMS))
    check_nothing_is_left(llm)


# Where all end


@both
@pytest.mark.parametrize("max_num_seqs", [1, 3, 64])
def test_a_fault_that_is_everywhere_ends_all_and_goes_round_in_no_circle(
    target: str, draft: str, max_num_seqs: int, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(target, draft, num_speculative_tokens=3, max_num_seqs=max_num_seqs)
    passes: list[int] = []

    def broken(spans: Sequence[Span]) -> bool:
        passes.append(len(spans))
        return True

    planted.fail_passes(monkeypatch, llm, broken)
    outputs = run(llm, PROMPTS, PARAMS)
    assert [output.error for output in outputs] == [INTERNAL_ERROR] * len(PROMPTS)
    assert len(passes) <= 3 * len(PROMPTS)
    check_nothing_is_left(llm)
    monkeypatch.undo()
    check_all_equal(target, run(llm, PROMPTS, PARAMS))
