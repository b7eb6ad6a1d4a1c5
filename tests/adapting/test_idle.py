"""When a head may be trained."""

from __future__ import annotations

import math

from outrider.adapting.idle import AllTheTime, WhileIdle
from tests.fakes import Clock


def test_a_while_after_the_last_request() -> None:
    clock = Clock()
    rule = WhileIdle(2.0, clock)
    assert rule.left() == 2.0
    clock.now = 1.5
    assert rule.left() == 0.5
    clock.now = 2.0
    assert rule.left() == 0.0
    rule.busy()
    clock.now = 1000.0
    assert rule.left() == math.inf
    rule.idle()
    rule.idle()
    assert rule.left() == 2.0
    clock.now = 1001.0
    rule.idle()  # it has been idle all along
    assert rule.left() == 1.0


def test_cores_of_its_own() -> None:
    rule = AllTheTime()
    rule.busy()
    assert rule.left() == 0.0
