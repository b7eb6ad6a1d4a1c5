"""The simulation where queueing theory says what has to come out, and what must hold in any run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.fleet.costs import Auto, Fixed, Length
from benchmarks.fleet.routers import ROUTERS, RoundRobin
from benchmarks.fleet.simulate import Fleet, Ran, conversations, run
from benchmarks.fleet.workload import Request, Workload
from tests.fleet.made_up import STEP, costs

ALONE = Fixed(0)


def stream(fleet: Fleet, rate: float, requests: int, answer: int, *, spread: bool) -> Ran:
    """A Poisson stream of requests with a prompt of one token."""
    random = np.random.default_rng(1)
    times = np.cumsum(random.exponential(1 / rate, requests)).tolist()
    lengths = random.geometric(1 / answer, requests).tolist() if spread else [answer] * requests
    asked = [Request(n, 0, 1, length, at) for n, (at, length) in enumerate(zip(times, lengths, strict=True))]
    return run(fleet, asked, lambda last: None, random)


@pytest.mark.parametrize("busy", [0.5, 0.8])
def test_one_request_at_a_time_is_a_queue_of_kind_m_d_1(busy: float) -> None:
    """Every request takes one step. Pollaczek and Khinchine: they wait busy * STEP / 2 / (1 - busy)."""
    fleet = Fleet(costs(seqs=1), ALONE, RoundRobin, 1)
    ran = stream(fleet, busy / STEP, 12000, 1, spread=False)
    waited = np.mean([request.first - request.arrived for request in ran.requests]) - STEP
    assert waited == pytest.approx(busy * STEP / 2 / (1 - busy), rel=0.08)


def erlang_c(servers: int, offered: float) -> float:
    """The chance to have to wait in M/M/c. offered: arrivals over one server's rate."""
    all_busy = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return all_busy / (sum(offered**n / math.factorial(n) for n in range(servers)) + all_busy)


def test_places_of_a_batch_are_the_servers_of_m_m_c() -> None:
    """Answers of geometric lengths, in steps that take the same for any number of requests."""
    servers, answer, busy = 4, 200, 0.6
    service = answer * STEP
    fleet = Fleet(costs(seqs=servers), ALONE, RoundRobin, 1)
    rate = busy * servers / service
    ran = stream(fleet, rate, 10000, answer, spread=True)
    # The step that is being computed ends first, and the prompt takes one.
    waited = np.mean([request.first - request.arrived for request in ran.requests]) - 1.5 * STEP
    assert waited == pytest.approx(erlang_c(servers, busy * servers) / (servers / service - rate), rel=0.12)


def any_run(length: Length, router: str, seed: int = 0) -> Ran:
    made = costs(row=STEP / 20)
    return conversations(Fleet(made, length, ROUTERS[router], 5, 4096), Workload(think=1.0), 8.0, 30.0, seed)


LENGTHS: dict[str, Length] = {"alone": ALONE, "three": Fixed(3), "auto": Auto(costs(row=STEP / 20))}


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("length", LENGTHS)
def test_no_request_and_no_token_is_lost(length: str, router: str) -> None:
    """And Little's law holds: requests that are there, over time, are those that came, for as long as each
    was there."""
    ran = any_run(LENGTHS[length], router)
    assert len(ran.requests) > 200
    assert all(request.written == request.answer for request in ran.requests)
    assert sum(done.tokens for done in ran.done) == sum(request.answer for request in ran.requests)
    assert all(request.arrived < request.first <= request.ended for request in ran.requests)
    turns = sorted((request.conversation, request.turn) for request in ran.requests)
    assert len({*turns}) == len(turns)
    assert {turn for conversation, turn in turns if conversation == 0} == {*range(6)}
    stayed = sum(request.ended - request.arrived for request in ran.requests)
    assert ran.system == pytest.approx(stayed)


def test_a_seed_says_all() -> None:
    first, again, other = (any_run(LENGTHS["auto"], "prefix-aware", seed) for seed in (3, 3, 4))
    assert first.seen(10, 30) == again.seen(10, 30)
    assert first.seen(10, 30) != other.seen(10, 30)


def test_drafts_give_what_their_chances_promise() -> None:
    seen = any_run(LENGTHS["three"], "least loaded").seen(0, 30)
    assert seen.length == pytest.approx(1 + 0.7 + 0.5 + 0.35, rel=0.03)
    assert any_run(ALONE, "least loaded").seen(0, 30).length == pytest.approx(1.0, abs=0.01)
