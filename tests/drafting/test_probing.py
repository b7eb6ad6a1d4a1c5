"""Trials of what did not pay: seldom, and everybody's turn comes."""

from __future__ import annotations

import random

import pytest

from outrider.drafting.probing import SHARE, Probing
from tests.fakes import stub


def test_losses_stay_within_the_share_of_time() -> None:
    probing, draw = Probing(), random.Random(0)
    requests = [stub(n) for n in range(5)]
    passed = lost = dearest = 0.0
    trials = 0
    for _ in range(20_000):
        seconds, steps = draw.uniform(0.01, 0.1), draw.randint(1, 4)
        losses = [draw.uniform(0.001, 0.05) for _ in requests]
        shared = draw.choice([0.0, 0.02])
        probing.save_up(seconds, steps)
        passed += seconds * steps
        chosen = probing.choose(requests, losses, shared=shared, most=seconds)
        spent = sum(losses[requests.index(request)] for request in chosen) + shared * bool(chosen)
        dearest = max(dearest, spent)
        lost += spent
        trials += len(chosen)
        for request in chosen:
            probing.tried(request)
        assert lost <= SHARE * passed + dearest
    assert trials > 1000
    assert lost > 0.5 * SHARE * passed


def test_who_has_waited_longest_goes_first() -> None:
    probing = Probing()
    first, second, third = requests = [stub(n) for n in range(3)]
    turns = []
    for _ in range(9):
        probing.save_up(0.1 / SHARE)
        (chosen,) = probing.choose(requests, [0.1] * 3, shared=0.0, most=0.1)
        probing.tried(chosen)
        turns.append(chosen)
    assert turns == [first, second, third] * 3


def test_a_trial_is_charged_what_it_turned_out_to_cost() -> None:
    """Foreseen at a tenth of that, or it would come ten times as often as its share of the time allows."""
    probing, request = Probing(), stub()
    lost, steps = 0.0, 20_000
    for _ in range(steps):
        probing.save_up(0.1)
        if probing.choose([request], [0.005], shared=0.0, most=0.1):
            lost += 0.05
            probing.settle(0.05)
    passed = steps * 0.1
    assert 0.9 * SHARE * passed <= lost <= SHARE * passed + 0.05  # and one trial


def test_who_had_a_draft_waits() -> None:
    probing = Probing()
    first, second = stub(0), stub(1)
    probing.save_up(0.1 / SHARE)
    probing.tried(first)
    assert probing.choose([first, second], [0.1, 0.1], shared=0.0, most=0.1) == [second]
    probing.forget(first)
    probing.tried(second)
    probing.save_up(0.1 / SHARE)
    assert probing.choose([first, second], [0.1, 0.1], shared=0.0, most=0.1) == [first]


def test_no_more_than_the_most_is_saved() -> None:
    probing = Probing()
    requests = [stub(n) for n in range(10)]
    probing.save_up(1.0, 10**6)
    assert len(probing.choose(requests, [0.1] * 10, shared=0.0, most=0.35)) == 3
    assert probing.choose(requests, [0.1] * 10, shared=0.0, most=0.35) == []


def test_a_trial_dearer_than_the_most_is_still_saved_for() -> None:
    probing = Probing()
    probing.save_up(2.0 / SHARE)
    assert probing.choose([stub()], [2.0], shared=0.0, most=0.5)


def test_what_is_shared_is_paid_once() -> None:
    probing = Probing()
    requests = [stub(n) for n in range(4)]
    probing.save_up(0.55 / SHARE)
    assert len(probing.choose(requests, [0.1] * 4, shared=0.2, most=1.0)) == 3


def test_steps_until_there_is_enough() -> None:
    probing = Probing()
    steps = probing.steps_until(0.5, 1.0)
    probing.save_up(1.0, steps)
    assert steps == pytest.approx(0.5 / SHARE, abs=1)
    assert probing.steps_until(0.5, 1.0) <= 1
    probing.save_up(1.0, 1)
    assert probing.choose([stub()], [0.5], shared=0.0, most=0.5)
    assert probing.steps_until(0.0, 1.0) == 0
