"""Every family of models gives the same tokens alone and in a batch, with and without drafts."""

from __future__ import annotations

from pathlib import Path

import pytest

from outrider import SamplingParams, SpeculationStats
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.factories import write_noisy_copy
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_same_tokens_alone_and_drafted_in_a_batch(family: str, tmp_path: Path) -> None:
    model = write_hf(tmp_path / "target", FAMILIES[family].config())
    write_noisy_copy(tmp_path / "draft", model, noise=0.05)
    alone = load(str(tmp_path / "target"), enable_prefix_caching=False, max_num_seqs=1)
    llm = load(str(tmp_path / "target"), str(tmp_path / "draft"), num_speculative_tokens=3)
    requests = [
        SamplingParams(temperature=0.8 * (number % 2), seed=number, max_tokens=24, ignore_eos=True)
        for number in range(len(PROMPTS))
    ]
    stats = SpeculationStats()
    for prompt, one, output in zip(
        PROMPTS, requests, llm.generate(PROMPTS, requests, use_tqdm=False), strict=True
    ):
        assert token_ids(output) == token_ids(alone.generate(prompt, one, use_tqdm=False)[0])
        stats += output.outputs[0].speculation
    assert 0 < stats.accepted < stats.drafted
