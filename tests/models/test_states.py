"""The hidden states that a target hands out are transformers' hidden states."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from tests.models.factories import exact_backend, tiny_config, write_hf

TOKENS = [5, 9, 2, 33, 17, 17, 4]


@pytest.mark.parametrize("name", ["torch", "native"])
def test_states_of_the_layers_that_were_asked_for(name: str, tmp_path: Path) -> None:
    reference = write_hf(tmp_path, tiny_config(num_hidden_layers=3))
    model = Model(open_checkpoint(str(tmp_path)), exact_backend(name))
    runner = ModelRunner(model, num_blocks=2, block_size=8, prefix_caching=False, state_layers=(0, 2, 3))
    with torch.inference_mode():
        whole = reference(torch.tensor([TOKENS]), output_hidden_states=True)
    passed = runner.run([Span(TOKENS, 0, ([1, 0],), 2)])
    embedding, third, last = torch.as_tensor(passed.kept).chunk(3, dim=-1)
    torch.testing.assert_close(embedding, whole.hidden_states[0][0])
    torch.testing.assert_close(third, whole.hidden_states[2][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reference.model.norm(last), whole.hidden_states[3][0], rtol=1e-4, atol=1e-4)
    logits = torch.from_numpy(passed.logits)
    torch.testing.assert_close(logits, whole.logits[0, -2:], rtol=1e-4, atol=1e-3)


def test_nothing_is_handed_out_unasked(tmp_path: Path) -> None:
    write_hf(tmp_path)
    model = Model(open_checkpoint(str(tmp_path)), exact_backend("torch"))
    runner = ModelRunner(model, num_blocks=1, block_size=8, prefix_caching=False)
    assert runner.run([Span(TOKENS, 0, ([0],), 1)]).kept is None
