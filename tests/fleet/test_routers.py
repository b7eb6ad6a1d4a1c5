"""What a choice of the replica is good for, and that it is the one that the cluster makes."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.fleet.costs import Fixed
from benchmarks.fleet.replica import Replica
from benchmarks.fleet.routers import BLOCKS_OF_A_REQUEST, BOUND, ROUTERS, SPARE, LeastLoaded, PrefixAware
from benchmarks.fleet.simulate import Fleet, Seen, conversations
from benchmarks.fleet.workload import Request, Workload
from tests.fleet.made_up import STEP, costs


def replicas(count: int) -> list[Replica]:
    random = np.random.default_rng(0)
    return [Replica(costs(), Fixed(0), 0, random) for _ in range(count)]


def seen(router: str) -> Seen:
    made = costs(row=STEP / 20)
    fleet = Fleet(made, Fixed(0), ROUTERS[router], 8)
    return conversations(fleet, Workload(think=1.0), 16.0, 40.0, 0).seen(10, 40)


def test_prefixes_are_found_where_they_are_looked_for() -> None:
    unaware, aware = seen("round robin"), seen("prefix-aware")
    assert aware.cached > 1.8 * unaware.cached
    assert aware.ttft_p99 < unaware.ttft_p99
    assert aware.tpot_mean < unaware.tpot_mean


def test_the_least_loaded_is_the_least_loaded() -> None:
    fleet, draw = replicas(20), np.random.default_rng(1)
    router = LeastLoaded(fleet, draw)
    for _ in range(500):
        changed = int(draw.integers(20))
        fleet[changed].load = int(draw.integers(9))
        router.changed(changed)
        assert fleet[router.least()].load == min(replica.load for replica in fleet)


def test_loads_are_bounded() -> None:
    """A conversation that everybody asks for is not sent to one replica alone."""
    fleet = replicas(4)
    router = PrefixAware(fleet, np.random.default_rng(0))
    for number in range(200):
        chosen = router.choose(Request(0, 0, 10**6, 1, 0.0))
        assert fleet[chosen].load < BOUND * (number + 1) / 4 + SPARE + 1
        fleet[chosen].load += 1
        router.changed(chosen)
    assert max(replica.load for replica in fleet) > 200 / 4


def test_the_rule_is_the_clusters() -> None:
    """The replica that comes first there is as good as the one that is chosen here."""
    prefixes = pytest.importorskip("outrider.cluster.prefixes", reason="the cluster is not there")
    assert (prefixes.BLOCKS_OF_A_REQUEST, prefixes.BOUND, prefixes.SPARE) == (
        BLOCKS_OF_A_REQUEST,
        BOUND,
        SPARE,
    )
    fleet, draw = replicas(6), np.random.default_rng(2)
    router, table = PrefixAware(fleet, draw), prefixes.PrefixTable()
    for _ in range(300):
        conversation, blocks = int(draw.integers(5)), int(draw.integers(1, 40))
        prefix = [f"{conversation} {block}".encode() for block in range(blocks)]
        loads = {str(number): replica.load for number, replica in enumerate(fleet)}
        router._requests = sum(loads.values())

        def worth(replica: str) -> tuple[int, int]:
            known = table.matched(replica, prefix), loads[replica]  # noqa: B023 -- of this round
            return known[0] - BLOCKS_OF_A_REQUEST * known[1], -known[1]

        first = table.ranked(prefix, loads)[0]
        chosen = router.choose(Request(conversation, 0, 16 * blocks, 1, 0.0))
        assert worth(str(chosen)) == worth(first)
        table.learn(str(chosen), prefix)
        fleet[chosen].load += 1
        router.changed(chosen)
        gone = int(draw.integers(6))
        fleet[gone].load = max(0, fleet[gone].load - 2)
        router.changed(gone)
