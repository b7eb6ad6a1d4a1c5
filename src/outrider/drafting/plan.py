"""What requests may draft."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from outrider.ops.budget import Budget


@dataclass(frozen=True)
class Plan:
    """What one request may draft in one step: a budget for each drafter of the chain, in the chain's
    order."""

    budgets: Sequence[Budget] = ()

    @cached_property
    def rows(self) -> int:
        """Rows and blocks to reserve."""
        return max((budget.rows for budget in self.budgets), default=0)

    @cached_property
    def length(self) -> int:
        """Tokens at most, one after the other."""
        return max((budget.length for budget in self.budgets), default=0)

    def within(self, length: int) -> Plan:
        """The same plan, with drafts of at most so many tokens one after the other."""
        return self if self.length <= length else Plan([budget.within(length) for budget in self.budgets])

    def in_rows(self, rows: int) -> Plan:
        """The same plan, with drafts of at most so many tokens in all."""
        return self if self.rows <= rows else Plan([budget.in_rows(rows) for budget in self.budgets])
