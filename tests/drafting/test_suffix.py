"""Suffix lookup: the longest end that was seen before, what followed it, and how sure that is."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

import pytest

from outrider.drafting.suffix import SuffixDrafter
from outrider.drafting.suffix_store import SuffixStore
from outrider.engine.request import Request
from outrider.ops.budget import Budget, Price
from outrider.ops.cpu import extension
from tests.fakes import stub

Text = extension.require().SuffixText
ALL = 10**6


def drafter(shortest: int = 1, longest: int = 64, memory: int = 0) -> SuffixDrafter:
    return SuffixDrafter(shortest, longest, SuffixStore(memory))


def request(tokens: Sequence[int]) -> Request:
    asked = stub()
    asked.tokens = [*tokens]
    return asked


def after(tokens: Sequence[int]) -> tuple[int, Counter[int]]:
    """The length of the longest end of a text that stands in it before, and what followed there."""
    for length in range(len(tokens) - 1, 0, -1):
        end = [*tokens[-length:]]
        found = [tokens[i] for i in range(length, len(tokens)) if [*tokens[i - length : i]] == end]
        if found:
            return length, Counter(found)
    return 0, Counter()


@pytest.mark.parametrize("vocabulary", [2, 3, 9])
def test_what_followed_is_found_and_counted(vocabulary: int) -> None:
    """Against a search of the whole text, after every token."""
    draw = random.Random(vocabulary)
    for _ in range(40):
        text, tokens = Text(), list[int]()
        for _ in range(50):
            tokens.append(draw.randrange(vocabulary))
            text.add(tokens[-1:])
            length, followed = after(tokens)
            found, confidences, seconds = text.follow([], 1, 1, ALL, True)
            if not followed:
                assert found == []
                continue
            times, others = followed[found[0]], followed.total() - followed[found[0]]
            assert times == max(followed.values())
            odds = times**1.5 * length / (3 + 4 * others * length)
            assert confidences == [pytest.approx(odds / (1 + odds))]
            if not others:
                assert seconds == [-1]
            else:
                rest = Counter({token: n for token, n in followed.items() if token != found[0]})
                assert rest[seconds[0]] >= 1
            assert text.follow([], 1, length + 1, ALL, False)[0] == [], "as much as has to match"


def test_a_long_match_is_surer_and_one_that_parts_is_not() -> None:
    def sure(tokens: Sequence[int], longest: int = ALL) -> float:
        text = Text()
        text.add(tokens)
        return float(text.follow([], 1, 1, longest, False)[1][0])

    once, twice = [*range(40), *range(20)], [*range(40), 99, *range(40), 98, *range(20)]
    assert sure([7, 8, 9, 7]) < sure([7, 8, 9, 7, 8]) < sure(once) < sure(twice)
    assert sure(once, longest=2) == sure([7, 8, 9, 7, 8])
    assert sure([*range(20), 50, *range(20), 60, *range(20)]) < 0.3


def test_the_latest_of_equals_is_drafted() -> None:
    text = Text()
    text.add([1, 5, 1, 6, 1])
    assert text.follow([], 1, 1, ALL, True) == ([6], [pytest.approx(1 / (1 + 7))], [5])


def test_a_repetition_goes_on() -> None:
    (draft,) = drafter().draft([request([1, 2, 3, 1, 2, 3, 1])], [Budget(7)])
    assert draft.tokens == (2, 3, 1, 2, 3, 1, 2)
    (same,) = drafter().draft([request([4] * 9)], [Budget(5)])
    assert same.tokens == (4,) * 5


def test_nothing_is_drafted_without_a_match_that_is_long_enough() -> None:
    text = [1, 2, 3, 9, 3]
    assert drafter(shortest=1).draft([request(text)], [Budget(2)])[0].tokens == (9, 3)
    assert drafter(shortest=2).draft([request(text)], [Budget(2)])[0].tokens == ()
    assert drafter().draft([request([1, 2, 3])], [Budget(2)])[0].tokens == ()


def test_siblings_are_other_ways_in_which_the_text_went_on() -> None:
    text = [1, 2, 5, 8, 1, 2, 7, 6, 1, 2]
    free = Price(0.0, 0.0, 0, (0.5,), second=(0.5,))
    (draft,) = drafter().draft([request(text)], [Budget(3, free, siblings=3)])
    assert draft.tokens[: draft.depth] == (7, 6, 1)
    assert (draft.tokens[3:], draft.parents[3:]) == ((5,), (-1,))
    (without,) = drafter().draft([request(text)], [Budget(3, free)])
    assert (without.tokens, without.parents) == ((7, 6, 1), ())
    dear = Price(0.3, 0.0, 0, (0.5,), second=(0.5,))
    (alone,) = drafter().draft([request(text)], [Budget(3, dear, siblings=3)])
    assert alone.tokens == (7,)


def test_a_draft_ends_with_the_text() -> None:
    asked = request([1, 2, 3, 4, 1, 2])
    asked.stop_tokens = frozenset({3})
    assert drafter().draft([asked], [Budget(4)])[0].tokens == (3,)


def test_it_goes_on_behind_what_others_drafted() -> None:
    of, asked = drafter(shortest=2), request([*range(10), 50])
    assert of.draft([asked], [Budget(3)])[0].tokens == ()
    assert of.extend([asked], [(4, 5)], [Budget(3)])[0].tokens == (6, 7, 8)
    assert of.extend([asked], [(50, 77)], [Budget(3)])[0].tokens == ()
    assert of.draft([asked], [Budget(3)])[0].tokens == (), "what others drafted was no part of the text"


def test_tokens_are_read_as_they_come_and_again_after_a_preemption() -> None:
    of, asked, draw = drafter(), request([1]), random.Random(0)
    for step in range(60):
        asked.tokens += [draw.randrange(3) for _ in range(draw.randrange(4))]
        if step % 7 == 0:
            of.end(asked)
        anew = drafter().draft([asked], [Budget(4)])
        assert of.draft([asked], [Budget(4)]) == anew


def test_a_long_text_takes_few_bytes() -> None:
    """Even one that is made to have as many states as there can be. A dictionary took 400 a token."""
    draw, most = random.Random(0), extension.require().SuffixAutomaton.MOST_PER_TOKEN
    texts = {
        "words": [draw.choice(range(2000)) for _ in range(20_000)],
        "one": [1] * 20_000,
        "two": [1] * 10_000 + [2] * 10_000,
        "states": [1] + [2] * 19_999,
        "edges": [1] + [2] * 10_000 + [3] * 9_999,
        "few": [draw.randrange(2) for _ in range(20_000)],
    }
    for name, tokens in texts.items():
        text = Text()
        text.add(tokens)
        assert text.bytes < most * len(tokens) + extension.require().SuffixAutomaton.BESIDES, name
    assert Text().bytes < 16_384


@pytest.mark.parametrize("tokens", [[-1], [0, -5]])
def test_what_is_no_token_is_refused(tokens: list[int]) -> None:
    with pytest.raises(ValueError, match=r"a token is at least 0"):
        Text().add(tokens)
