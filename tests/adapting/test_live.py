"""Whether a new version is trusted."""

from __future__ import annotations

import random

import pytest

from outrider.adapting.live import LiveCheck, Trust


def told(check: LiveCheck, share: float, count: int, seed: int = 0) -> list[Trust]:
    draw = random.Random(seed)
    return [check.add(draw.random() < share) for _ in range(count)]


@pytest.mark.parametrize(("after", "found"), [(0.4, Trust.WORSE), (0.6, Trust.BETTER), (0.7, Trust.BETTER)])
def test_a_version_is_judged_once(after: float, found: Trust) -> None:
    check = LiveCheck()
    assert set(told(check, 0.6, 1000)) == {Trust.OPEN}
    check.exchanged()
    *early, last = told(check, after, 512, seed=1)
    assert set(early) == {Trust.OPEN}
    assert last is found
    assert set(told(check, after, 2000, seed=2)) == {Trust.OPEN}


def test_nothing_is_said_of_a_version_that_follows_on_few_drafts() -> None:
    check = LiveCheck()
    told(check, 0.9, 511)
    check.exchanged()
    assert set(told(check, 0.0, 2000)) == {Trust.OPEN}


def test_chance_is_no_reason() -> None:
    """The same head is hardly ever found worse."""
    found = []
    for seed in range(200):
        check = LiveCheck()
        told(check, 0.5, 512, seed=2 * seed)
        check.exchanged()
        found.append(told(check, 0.5, 512, seed=2 * seed + 1)[-1])
    assert found.count(Trust.WORSE) <= 2
