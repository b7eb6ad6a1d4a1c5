"""What requests may draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from outrider.ops.budget import Budget


@dataclass(frozen=True)
class Plan:
    """What one request may draft in one step: a budget for each drafter of the chain, in the chain's
    order."""

    budgets: Sequence[Budget] = ()

    @property
    def length(self) -> int:
        """Rows and blocks to reserve."""
        return max((budget.length for budget in self.budgets), default=0)

    def within(self, length: int) -> Plan:
        """The same plan, with at most `length` tokens."""
        return self if self.length <= length else Plan([budget.within(length) for budget in self.budgets])
