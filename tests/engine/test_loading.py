"""What a listener hears while an engine is built."""

from __future__ import annotations

from itertools import groupby
from math import prod

from outrider import LLM
from outrider.loading import Loading
from outrider.models.checkpoint import open_checkpoint
from outrider.models.leaves import tensors


def test_every_step_in_order(target: str, draft: str, head: str) -> None:
    heard: list[Loading] = []
    LLM(target, device="cpu", speculative_model=["ngram", draft, head], listener=heard.append)
    steps = {what: list(group) for what, group in groupby(heard, lambda step: step.what)}
    assert list(steps) == [
        f"reading {target}",
        f"packing {target}",
        "reading the tokenizer",
        f"packing {draft}",
        f"packing {head}",
        "measuring passes and drafts",
    ]
    for what, group in steps.items():
        counts = [step.done for step in group]
        if what.startswith("packing"):
            assert counts[0] == 0
            assert counts == sorted(set(counts))
            assert counts[-1] == group[-1].total > 0
        else:
            assert [step.total for step in group] == [0]
    tree = open_checkpoint(target).config.tree
    assert not tree.tied
    assert steps[f"packing {target}"][-1].total == sum(prod(tensor.shape) for tensor in tensors(tree))
