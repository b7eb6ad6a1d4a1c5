"""Faults in references and recorded programs, to see that comparing with them can fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor

from outrider import LLM
from outrider.ops.choice import Choice, Stepped
from outrider.ops.cpu.forward import NativeRows
from outrider.ops.span import Span
from outrider.ops.torch import choose
from tests.fuzz import native_cases
from tests.fuzz.native_cases import Recorded
from tests.ops import drafts


def draft_from_before(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """The reference of drafts goes on from the row, the position or the state before.

    fault: 'input', 'start' or 'state'.
    """
    real = drafts.run

    def faulty(drafter: Any, p: Any, tokens: Any, start: int, text: Any, states: Any, *slots: int) -> Any:
        behind = start >= len(text.tokens)
        if behind and fault == "input":
            states = np.roll(states, 1, axis=1)
        if behind and fault == "start":
            start -= 1
        if behind and fault == "state":
            slots = (text.slots[1], slots[1])
        return real(drafter, p, tokens, start, text, states, *slots)

    monkeypatch.setattr(drafts, "run", faulty)


def silence_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise so small that it is none, where PyTorch chooses."""
    monkeypatch.setattr(choose, "gumbel", lambda keys, tokens: 0)


def change_results(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor, list[Tensor], int], None]
) -> None:
    """A program's results are changed: its output, what it has kept, by the number of spans."""
    run = Recorded.run

    def faulty(self: Recorded, x: Tensor, spans: Any, *, kept: bool) -> tuple[Tensor, list[Tensor]]:
        out, values = run(self, x, spans, kept=kept)
        change(out, values, len(spans))
        return out, values

    monkeypatch.setattr(Recorded, "run", faulty)


def choose_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of choosing takes the first token, whatever its score."""
    monkeypatch.setattr(native_cases, "chosen", lambda logits, *_: [0] * len(logits))


def round_rows(monkeypatch: pytest.MonkeyPatch, llm: LLM) -> None:
    """The scores of a pass over several rows are rounded: their last bits depend on the number of rows."""
    step = llm.engine.target.step

    def rounding(spans: Sequence[Span], choices: Sequence[Choice | None], **_: bool) -> Stepped:
        stepped = step(spans, choices, looks=True)
        if stepped.rows is None or sum(span.logit_rows for span in spans) == 1:
            return stepped
        tokens = [
            [] if choice is None else choose.choose((torch.tensor(rows.logits) * 4).round() / 4, choice)
            for choice, rows in zip(choices, cast(Sequence[NativeRows], stepped.rows), strict=True)
        ]
        return stepped._replace(tokens=tokens)

    monkeypatch.setattr(llm.engine.target, "step", rounding)
