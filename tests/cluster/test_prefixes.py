"""Which replica a request goes to."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outrider.cluster.prefixes import BOUND, SPARE, PrefixTable

PREFIX = [bytes([n]) * 8 for n in range(40)]


def test_a_conversation_stays_where_it_is_cached() -> None:
    table = PrefixTable()
    table.learn("b", PREFIX[:20])
    assert table.ranked(PREFIX, {"a": 0, "b": 0, "c": 0})[0] == "b"
    assert table.ranked(PREFIX, {"a": 1, "b": 3, "c": 1})[0] == "b", "twenty blocks are worth that"


def test_but_not_at_any_price() -> None:
    """A short prefix is read again rather than waited for; and nobody has much more than the mean."""
    table = PrefixTable()
    table.learn("b", PREFIX[:2])
    assert table.ranked(PREFIX, {"a": 0, "b": 1})[0] == "a"
    table.learn("b", PREFIX)
    assert table.ranked(PREFIX, {"a": 0, "b": 12})[0] == "a"


def test_the_longest_match_wins() -> None:
    table = PrefixTable()
    table.learn("a", PREFIX[:5])
    table.learn("b", PREFIX[:30])
    assert table.matched("b", PREFIX) == 30
    assert table.ranked(PREFIX, {"a": 0, "b": 0})[0] == "b"
    assert table.matched("a", [b"x" * 8, *PREFIX]) == 0, "a prefix begins at the beginning"


def test_one_that_is_gone_is_forgotten() -> None:
    table = PrefixTable()
    table.learn("a", PREFIX)
    table.keep(["b"])
    assert table.matched("a", PREFIX) == 0


def test_the_table_is_bounded_and_keeps_beginnings() -> None:
    table = PrefixTable(10)
    table.learn("a", PREFIX)
    assert table.matched("a", PREFIX) == 10
    table.learn("a", [b"y" * 8])
    assert table.matched("a", PREFIX) == 9


@given(
    loads=st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 50), min_size=1),
    known=st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 40)), max_size=6),
    length=st.integers(0, 40),
)
def test_every_replica_is_ranked_and_the_bound_holds(
    loads: dict[str, int], known: list[tuple[str, int]], length: int
) -> None:
    table = PrefixTable()
    for replica, blocks in known:
        table.learn(replica, PREFIX[:blocks])
    ranked = table.ranked(PREFIX[:length], loads)
    assert sorted(ranked) == sorted(loads)
    assert loads[ranked[0]] <= BOUND * (sum(loads.values()) + 1) / len(loads) + SPARE
    if not known:
        assert loads[ranked[0]] == min(loads.values()), "with nothing cached, the one with least to do"
    assert ranked == table.ranked(PREFIX[:length], dict(reversed(loads.items()))), "whichever ingress asks"
