"""Faults that tests plant, to see that they are caught."""

from __future__ import annotations

import pytest

from outrider.verification.accept import Verdict
from outrider.verification.rules import Coupled, Round


def believe_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token of every draft stands, whatever the target says."""
    judge = Coupled.judge

    def believe(self: Coupled, round: Round) -> Verdict:
        verdict, draft = judge(self, round), round.draft
        return verdict if verdict.accepted or not draft else Verdict(1, (draft[0], *verdict.tokens))

    monkeypatch.setattr(Coupled, "judge", believe)
