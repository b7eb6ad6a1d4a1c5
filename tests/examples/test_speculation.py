"""The picture of the algorithm draws it as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import speculation_in_60_lines as example
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.cpu.backend import NativeBackend
from tests import planted

PROMPT = [5, 6, 7, 8, 5, 6, 7, 8, 5, 6]


@pytest.fixture
def runner(target: str) -> ModelRunner:
    model = Model(open_checkpoint(target), NativeBackend(cache_dtype="float32"))
    return ModelRunner(model, num_blocks=16, block_size=16, prefix_caching=False)


@pytest.mark.parametrize("length", [1, 3, 8])
def test_the_same_tokens_in_no_more_passes(runner: ModelRunner, length: int) -> None:
    plain, passes = example.generate(runner, PROMPT, 40, 0)
    tokens, fewer = example.generate(runner, PROMPT, 40, length)
    assert tokens == plain
    assert passes == 40
    assert fewer <= passes


def test_a_rule_that_trusts_the_draft_is_noticed(
    runner: ModelRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = example.generate(runner, PROMPT, 40, 0)
    planted.trust_drafts(monkeypatch, example)
    assert example.generate(runner, PROMPT, 40, 3)[0] != plain


def test_it_runs_and_is_short(capsys: pytest.CaptureFixture[str]) -> None:
    example.main("smollm2")
    assert "the same tokens: True" in capsys.readouterr().out
    assert example.__file__ is not None
    lines = Path(example.__file__).read_text().splitlines()
    code = [
        line
        for line in lines
        if line.strip() and not line.lstrip().startswith(("#", '"""', "from", "import"))
    ]
    assert len(code) <= 60
