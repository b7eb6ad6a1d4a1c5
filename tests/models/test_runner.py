"""What is left of a runner's pass when its cache is given back."""

from __future__ import annotations

import gc
import weakref

import pytest

from outrider.drafting.model import ModelDrafter
from outrider.models.runner import DraftRunner, ModelRunner
from tests.engine.helpers import PROMPTS, drafters_of, load


@pytest.fixture
def drafter(target: str, draft: str) -> ModelDrafter:
    (drafter,) = drafters_of(load(target, draft))
    assert isinstance(drafter, ModelDrafter)
    return drafter


def test_a_draft_model_that_rests_compiles_nothing(
    drafter: ModelDrafter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its runner is dropped, and the next draft makes another."""
    resting, compiled = drafter.runner, list[object]()
    monkeypatch.setattr(resting, "compile", compiled.append)
    drafter.rest()
    assert not compiled
    assert drafter.runner is not resting


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("drafts", [False, True])
def test_who_forgets_drops_the_pass_that_was(target: str, draft: str, backend: str, drafts: bool) -> None:
    """It keeps room for as many rows as it has run; a chain of drafts would hold it too."""
    llm = load(target, draft, backend=backend)
    llm.generate(PROMPTS[0], use_tqdm=False)
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, ModelDrafter)
    runner: ModelRunner = drafter.runner if drafts else llm.engine.target
    assert isinstance(runner, DraftRunner) == drafts
    before = weakref.ref(runner._forward)
    runner.forget()
    gc.collect()
    assert before() is None
    assert runner._forward is not None
