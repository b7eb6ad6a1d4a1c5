"""A drafter that never pays is told of, once; one that only rests is not."""

from __future__ import annotations

import logging

import pytest

from tests.drafting.test_auto import CHEAP, DEAR
from tests.fakes import Player, World, stub, stubs

NAME = "path/to/draft"


def world_of(*players: Player) -> World:
    world = World(players)
    for number, link in enumerate(world.policy.links):
        link.name = f"{NAME}{number}"
    return world


def serve(world: World, count: int, steps: int = 200) -> None:
    """So many requests, one after the other."""
    for number in range(count):
        request = stub(number)
        world.run([request], steps)
        world.policy.end(request)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    "player",
    [Player(DEAR, lambda _: 0.02), Player(CHEAP, lambda _: 0.02), Player(DEAR, lambda _: 0.3)],
    ids=["never right", "cheap and never right", "too dear for what is right"],
)
def test_a_useless_drafter_is_told_of_once(player: Player, caplog: pytest.LogCaptureFixture) -> None:
    serve(world_of(player), 30)
    (message,) = told(caplog)
    assert f"speculative_model '{NAME}0' does not pay" in message
    assert "\n" not in message


def test_in_a_chain_it_is_named(caplog: pytest.LogCaptureFixture) -> None:
    serve(world_of(Player(CHEAP, lambda _: 0.02), Player(CHEAP, lambda _: 0.8)), 30)
    (message,) = told(caplog)
    assert f"'{NAME}0'" in message


def test_one_request_is_no_measure(caplog: pytest.LogCaptureFixture) -> None:
    """It may be unlike others."""
    world = world_of(Player(CHEAP, lambda _: 0.02))
    world.run([stub()], 5000)
    assert world.lengths(1000) < 0.1
    assert not told(caplog)


def test_a_drafter_that_rests_for_some_requests_is_not_useless(caplog: pytest.LogCaptureFixture) -> None:
    world = world_of(Player(CHEAP, lambda request: 0.02 if int(request.id) % 2 else 0.8))
    serve(world, 20)
    assert not told(caplog)


def test_a_drafter_that_rests_under_load_is_not_useless(caplog: pytest.LogCaptureFixture) -> None:
    world = world_of(Player(CHEAP, lambda _: 0.5))
    for _ in range(5):
        batch = stubs(64)
        world.run(batch, 200)
        for request in batch:
            world.policy.end(request)
    assert world.lengths(50) < 0.1
    assert not told(caplog)


def test_a_drafter_that_has_little_to_offer_is_not_useless(caplog: pytest.LogCaptureFixture) -> None:
    serve(world_of(Player(CHEAP, lambda _: 0.7, offers=0.02)), 20)
    assert not told(caplog)
