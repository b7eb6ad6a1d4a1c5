"""No block is lost or kept, after any sequence of add, step, abort and take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from outrider import LLM, SamplingParams
from outrider.drafting.head import HeadDrafter
from outrider.drafting.model import ModelDrafter
from tests.engine.helpers import PROMPTS, expected, held_blocks, load, token_ids


class EngineMachine(RuleBasedStateMachine):
    """Drives one engine with a small cache, so that preemption is common."""

    llm: LLM
    target: str

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[str, tuple[tuple[int, ...], SamplingParams]] = {}

    @rule(
        prompt=st.sampled_from(PROMPTS),
        temperature=st.sampled_from([0.0, 1.0]),
        length=st.integers(0, 6),
        max_tokens=st.integers(1, 80),
        n=st.integers(1, 2),
    )
    def add(self, prompt: tuple[int, ...], temperature: float, length: int, max_tokens: int, n: int) -> None:
        params = SamplingParams(
            temperature=temperature, num_speculative_tokens=length, max_tokens=max_tokens, n=n, seed=3
        )
        self.live[self.llm.engine.add(prompt, params)] = (prompt, params)

    @rule(steps=st.integers(1, 12))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            for increment in self.llm.engine.step():
                assert increment.request_id in self.live

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.live)))
        self.llm.engine.discard(request_id)
        del self.live[request_id]

    @invariant()
    def every_block_is_free_or_in_a_table(self) -> None:
        engine = self.llm.engine
        for pool, held in held_blocks(engine):
            assert pool.num_free == pool.num_blocks - len(held)
        for request in engine.scheduler.waiting:
            assert not any(request.table.tables)
        assert len(engine.scheduler.running) <= 4

    def teardown(self) -> None:
        engine = self.llm.engine
        while engine.unfinished:
            engine.step()
        for request_id, (prompt, params) in self.live.items():
            assert token_ids(engine.take(request_id)) == token_ids(expected(self.target, prompt, params))
        assert engine.target.pool.num_free == engine.target.pool.num_blocks
        for drafter in engine.drafters.drafters:
            if isinstance(drafter, (ModelDrafter, HeadDrafter)):
                pool = drafter.runner.pool
                assert pool.num_free == pool.num_blocks


@pytest.mark.parametrize("drafter", ["ngram", "draft", "head"])
def test_no_block_leaks(target: str, drafter: str, request: pytest.FixtureRequest) -> None:
    name = drafter if drafter == "ngram" else request.getfixturevalue(drafter)
    llm = load(target, name, kv_cache_memory=200_000, max_model_len=160, max_num_seqs=4)

    class BoundMachine(EngineMachine):
        pass

    BoundMachine.llm, BoundMachine.target = llm, target
    options: dict[str, Any] = {"max_examples": 15, "stateful_step_count": 25, "deadline": None}
    run_state_machine_as_test(
        BoundMachine, settings=settings(**options, derandomize=True, suppress_health_check=list(HealthCheck))
    )
