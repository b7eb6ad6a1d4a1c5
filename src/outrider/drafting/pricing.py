"""What a decision lets a request draft, at the price of a row.

What the time of a row would yield otherwise is its price, at which a drafter that knows how sure it is stops
by itself, as AdaEDL does (Agrawal et al., 2024), with a price instead of a fixed bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outrider.drafting.decision import Decision, Estimate
from outrider.drafting.grammar import forced_budget
from outrider.drafting.length import fixed_plan
from outrider.drafting.plan import Plan
from outrider.ops.budget import Budget, Price

if TYPE_CHECKING:
    from outrider.engine.request import Request

NOTHING = Budget(0)


def priced(
    known: Estimate, decision: Decision, request: Request, trials: Sequence[bool], nothing: Plan
) -> Plan:
    """The request's plan; `nothing` where it has nothing to draft. trials: whether each drafter is asked for
    a token although it does not pay."""
    own = request.params.num_speculative_tokens
    if own is not None:
        return fixed_plan(request, own, len(known.links))
    lengths = decision.lengths[request]
    forced = forced_budget(request)
    if not any(lengths) and not any(trials) and not forced.length:
        return nothing
    weighed = (_budget(known, decision, n, request, lengths[n], trials[n]) for n in range(len(known.links)))
    return Plan((forced, *weighed))


def _budget(
    known: Estimate, decision: Decision, number: int, request: Request, length: int, trial: bool
) -> Budget:
    if not (length or trial):
        return NOTHING
    link = known.links[number]
    forecast = link.forecast
    length = max(length, 1)
    if forecast.informed:  # it stops by itself
        length = min(2 * length + 2, known.bounds.most)
    row = decision.row + known.target.attention(0, len(request.tokens))
    price = Price(
        row=decision.rate * row,
        token=decision.rate * (row + link.each(request) + link.deeper(request) / max(1, decision.drafting)),
        least=1 if trial else known.bounds.least,
        sure=forecast.sure(request),
        reached=forecast.reached(request),
        second=forecast.second(request) if known.trees else (),
    )
    return Budget(length, price, siblings=length if price.second else 0)
