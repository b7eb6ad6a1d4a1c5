"""What suffix lookup is for: a file that is written again with a few changes."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from outrider.drafting.auto import AutoLength
from outrider.drafting.base import Draft
from outrider.drafting.chain import Chain
from outrider.drafting.costs import DraftCost
from outrider.drafting.forecast import Forecast
from outrider.drafting.length import FixedLength, LengthPolicy, Load, Outcome, Timing
from outrider.drafting.link import Link
from outrider.drafting.suffix import SuffixDrafter
from outrider.drafting.suffix_store import SuffixStore
from outrider.drafting.workloads import WORKLOADS
from outrider.verification.accept import coupled
from tests.fakes import Clock, stub, target_cost

LINES = 300
CHANGES: Sequence[tuple[int, int, list[str]]] = (  # the first line, how many go, what comes in their place
    (30, 2, ["    # Written anew, with care.", "    limit = compute_limit(width, height)", "    log(limit)"]),
    (90, 1, []),
    (151, 3, ["        raise UnknownFormatter(prog, indent_increment)"]),
    (
        205,
        0,
        ["", "    def reset(self):", "        self._whitespace = None", "        self._sections.clear()"],
    ),
    (270, 2, ["        return formatted.rstrip() + self._footer", "        # end of help"]),
)
MOST_RUNS = 5


class Told(NamedTuple):
    """steps: with what each yielded; spent: seconds; plain: seconds of as many tokens without drafts."""

    steps: list[int]
    spent: float
    plain: float

    @property
    def tokens_a_step(self) -> float:
        return sum(self.steps) / len(self.steps)


class Words:
    """Numbers of words, in the order in which they turn up."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def read(self, lines: Sequence[str]) -> list[int]:
        words = re.findall(r"\n *| ?\w{1,7}|[^\w\n]", "\n".join(lines))
        return [self._ids.setdefault(word, len(self._ids)) for word in words]


def edited() -> tuple[list[int], list[int]]:
    """A prompt with 300 lines of code, and the answer: the same with five runs of it changed."""
    before = inspect.getsource(argparse).splitlines()[100 : 100 + LINES]
    after = [*before]
    for first, gone, come in reversed(CHANGES):
        after[first : first + gone] = come
    words = Words()
    asked = words.read(["Write this again, with these changes: ...", *before, "Answer:", ""])
    return asked, words.read(after)


def play(prompt: Sequence[int], answer: Sequence[int], policy: LengthPolicy, drafter: SuffixDrafter) -> Told:
    """Steps of a target that says `answer`, whose passes take what `target_cost` says."""
    request, end = stub(), len(prompt) + len(answer)
    request.tokens = [*prompt, answer[0]]
    told, chain, cost, spent = list[int](), Chain([drafter]), target_cost(), 0.0
    said = [*prompt, *answer]
    while len(request.tokens) < end:
        here = len(request.tokens)
        (plan,) = policy.plans([request], Load(1, here, here, budget=500))
        plan = plan.within(max(0, end - here - 1))
        (draft,) = chain.draft([request], [plan])
        verdict = coupled(chosen(said, here, draft), draft.tokens, draft.parents)
        verified = cost.one_pass(1 + len(draft.tokens))
        policy.observe(
            [Outcome(request, plan, draft, verdict)], Timing([0.0, 1e-5], verified, verified + 1e-4)
        )
        request.tokens += verdict.tokens
        told.append(len(verdict.tokens))
        spent += verified
    assert request.tokens == said, "it says what it says, whatever is drafted"
    drafter.end(request)
    return Told(told, spent, len(answer) * cost.one_pass(1))


def chosen(said: Sequence[int], here: int, draft: Draft) -> list[int]:
    """The target's token at the request's last one and at every drafted one."""

    def next_after(path: Sequence[int]) -> int:
        on = list(path) == list(said[here : here + len(path)]) and here + len(path) < len(said)
        return said[here + len(path)] if on else -1

    return [next_after([]), *(next_after(draft.before(n)) for n in range(len(draft.tokens)))]


def automatic(drafter: SuffixDrafter) -> AutoLength:
    bounds = WORKLOADS[None]
    link = Link(drafter, DraftCost(0.0, 1e-6), Forecast(bounds.most, bounds.acceptance))
    return AutoLength([link], target_cost(), bounds, lambda: None, trees=True, clock=Clock())


def drafter_of(memory: int = 0) -> SuffixDrafter:
    return SuffixDrafter(2, 64, SuffixStore(memory))


def test_an_edit_takes_six_tokens_a_step() -> None:
    prompt, answer = edited()
    assert len(CHANGES) == MOST_RUNS
    assert len(answer) > 2000
    drafter = drafter_of()
    told = play(prompt, answer, automatic(drafter), drafter)
    assert told.tokens_a_step >= 6
    assert told.plain / told.spent >= 4


@pytest.mark.parametrize(("length", "least"), [(8, 6.0), (16, 9.0)])
def test_with_a_fixed_length_too(length: int, least: float) -> None:
    prompt, answer = edited()
    told = play(prompt, answer, FixedLength(length, 1), drafter_of())
    assert told.tokens_a_step >= least


def test_an_answer_that_somebody_had_comes_in_long_steps() -> None:
    """From the texts of finished requests, and with another salt as if nobody had asked."""
    prompt, answer = edited()
    drafter = drafter_of(2**22)
    lone = play(prompt[:3], answer, automatic(drafter), drafter)
    store = drafter._shared
    store.add(None, [*prompt[:3], *answer])
    again = play(prompt[:3], answer, automatic(drafter), drafter)
    assert again.tokens_a_step > 2 * lone.tokens_a_step
    assert again.tokens_a_step >= 9
