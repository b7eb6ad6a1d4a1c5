"""What is learnt from verdicts: without bias, quickly, and of each request and position its own."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from outrider.drafting import forecast
from outrider.drafting.base import Draft
from outrider.drafting.forecast import CONFIDENCE_CELLS, Forecast
from outrider.ops.budget import cell
from outrider.verification.accept import Verdict
from tests import planted
from tests.fakes import stub

if TYPE_CHECKING:
    from outrider.engine.request import Request

LENGTH = 8


def draft(length: int, confidences: Sequence[float] = ()) -> Draft:
    return Draft((1,) * length, confidences=tuple(confidences))


def stood(count: int) -> Verdict:
    """So many tokens of a draft."""
    return Verdict(count, ())


def accepted(chances: Sequence[float], draw: random.Random) -> int:
    """How many tokens stand that do so with these chances, each given those before it."""
    for number, chance in enumerate(chances):
        if draw.random() >= chance:
            return number
    return len(chances)


def taught(
    forecast: Forecast,
    requests: Sequence[Request],
    chances: Callable[[int], Sequence[float]],
    drafts: int,
    draw: random.Random,
) -> None:
    """So many drafts of each request, by number, with these chances to stand."""
    for _ in range(drafts):
        for number, request in enumerate(requests):
            of = chances(number)
            forecast.observe(request, draft(len(of)), len(of), stood(accepted(of, draw)))
        forecast.refresh()


def stands(forecast: Forecast, request: Request) -> list[float]:
    """Position by position, the chance that a token stands, given those before it."""
    survivals = [1.0, *(survival for survival, _ in forecast.curve(request))]
    return [after / before for before, after in pairwise(survivals)]


def first(forecast: Forecast, request: Request) -> float:
    return stands(forecast, request)[0]


def sure_of(forecast: Forecast, request: Request, confidence: float) -> float:
    """The chance that a token stands of which the drafter is so sure."""
    return forecast.sure(request)[cell(confidence, CONFIDENCE_CELLS)]


def average(
    forecast: Forecast, requests: Sequence[Request], teach: Callable[[], None], rounds: int
) -> list[float]:
    """The average of what is foretold position by position, while more and more is learnt."""
    sums = [0.0] * LENGTH
    for _ in range(rounds):
        teach()
        for request in requests:
            for position, chance in enumerate(stands(forecast, request)):
                sums[position] += chance / (rounds * len(requests))
    return sums


def test_a_draft_that_stood_says_nothing_of_what_it_did_not_reach() -> None:
    """Drafts of two tokens that stand as a whole, and longer ones that fall at the fourth."""
    forecast, request = Forecast(LENGTH, 0.5), stub()
    for _ in range(200):
        forecast.observe(request, draft(2), 2, stood(2))
        forecast.observe(request, draft(4), 4, stood(3))
        forecast.refresh()
    chances = stands(forecast, request)
    assert min(chances[:3]) > 0.9
    assert chances[3] < 0.2


def test_censored_drafts_do_not_bias_and_the_naive_estimate_would() -> None:
    """A token stands with 0.8, everywhere; drafts are short, seldom long."""
    draw = random.Random(0)
    forecast, request = Forecast(LENGTH, 0.5), stub()
    reached, standing = [0] * LENGTH, [0] * LENGTH

    def teach() -> None:
        length = LENGTH if draw.random() < 0.1 else 2
        count = accepted([0.8] * length, draw)
        forecast.observe(request, draft(length), length, stood(count))
        forecast.refresh()
        for position in range(LENGTH):  # planted fault: what was not reached did not stand
            reached[position] += position <= count
            standing[position] += position < count

    taught(forecast, [request], lambda _: [0.8] * 2, 100, draw)
    foretold = average(forecast, [request], teach, 3000)
    naive = [s / r for s, r in zip(standing, reached, strict=True)]
    assert max(abs(chance - 0.8) for chance in foretold) < 0.06
    assert naive[2] < 0.4


def test_positions_have_chances_of_their_own() -> None:
    draw = random.Random(0)
    truth = [0.95, 0.9, 0.85, 0.8, 0.6, 0.5, 0.4, 0.3]
    forecast, requests = Forecast(LENGTH, 0.5), [stub(n) for n in range(4)]
    taught(forecast, requests, lambda _: truth, 300, draw)
    found = average(
        forecast, requests, lambda: taught(forecast, requests, lambda _: truth, 1, draw), rounds=500
    )
    assert found == pytest.approx(truth, abs=0.12)
    assert found[0] - found[5] > 0.3


def test_requests_have_chances_of_their_own() -> None:
    draw = random.Random(0)
    forecast, requests = Forecast(LENGTH, 0.5), [stub(n) for n in range(3)]
    truth = (0.9, 0.6, 0.2)
    taught(forecast, requests, lambda n: [truth[n]] * 4, 100, draw)
    sums = [0.0] * 3
    for _ in range(300):
        taught(forecast, requests, lambda n: [truth[n]] * 4, 1, draw)
        for number, request in enumerate(requests):
            sums[number] += first(forecast, request) / 300
    assert sums == pytest.approx(truth, abs=0.12)


@pytest.mark.parametrize("rate", [0.9, 0.3])
def test_a_newcomer_begins_with_what_the_others_taught(rate: float) -> None:
    forecast, draw = Forecast(LENGTH, 0.65), random.Random(0)
    assert first(forecast, stub()) == pytest.approx(0.65)
    taught(forecast, [stub(n) for n in range(4)], lambda _: [rate] * 4, 100, draw)
    assert first(forecast, stub(9)) == pytest.approx(rate, abs=0.1)


def test_what_ended_requests_taught_stays() -> None:
    forecast, draw, request = Forecast(LENGTH, 0.65), random.Random(0), stub()
    taught(forecast, [request], lambda _: [0.05] * 4, 300, draw)
    forecast.forget(request)
    assert first(forecast, request) < 0.4


@pytest.mark.parametrize(("before", "after"), [(0.9, 0.1), (0.1, 0.9)])
def test_a_change_is_followed_more_than_half_of_the_way_within_25_drafts(before: float, after: float) -> None:
    """On average over requests; another request, which did not change, is not carried along."""
    changed, other, count = 0.0, 0.0, 40
    for seed in range(count):
        draw, forecast, requests = random.Random(seed), Forecast(LENGTH, 0.65), [stub(0), stub(1)]
        taught(forecast, requests, lambda _: [before] * 4, 100, draw)
        taught(forecast, requests, lambda n: [before if n else after] * 4, 25, draw)
        changed += first(forecast, requests[0]) / count
        other += first(forecast, requests[1]) / count
    assert abs(changed - after) < 0.4
    assert abs(other - before) < 0.25


def test_silence_is_learnt_by_request() -> None:
    """One drafter that offers a token every second time, and what it offers stands."""
    draw = random.Random(0)
    forecast, request, talkative = Forecast(LENGTH, 0.5), stub(0), stub(1)
    sums = [0.0, 0.0]
    for step in range(600):
        offered = draw.choice([0, 3])
        forecast.observe(request, draft(offered), 3, stood(offered))
        forecast.observe(talkative, draft(3), 3, stood(3))
        forecast.refresh()
        if step >= 300:
            for number, of in enumerate((request, talkative)):
                sums[number] += forecast.first(of)[1] / 300
    assert sums[0] == pytest.approx(0.5, abs=0.1)
    assert sums[1] > 0.85


def test_a_draft_shorter_than_asked_is_a_silence_at_its_end() -> None:
    forecast, request = Forecast(LENGTH, 0.5), stub()
    for _ in range(200):
        forecast.observe(request, draft(2), 6, stood(2))
        forecast.refresh()
    offered = [offered for _, offered in forecast.curve(request)]
    assert offered[1] > 0.8
    assert offered[2] < 0.2


def test_a_draft_as_long_as_asked_is_no_silence() -> None:
    forecast, request = Forecast(LENGTH, 0.5), stub()
    for _ in range(200):
        forecast.observe(request, draft(2), 2, stood(2))
        forecast.refresh()
    assert min(offered for _, offered in forecast.curve(request)) > 0.8


CONFIDENCES = (0.1, 0.5, 0.9, 0.995)


def test_confidences_are_calibrated() -> None:
    """A drafter that is too sure of itself, but surer where it is right."""
    draw = random.Random(0)
    truth = dict(zip(CONFIDENCES, (0.2, 0.45, 0.75, 0.95), strict=True))
    forecast, requests = Forecast(LENGTH, 0.65), [stub(n) for n in range(4)]
    sums = dict.fromkeys(CONFIDENCES, 0.0)
    for step in range(1200):
        for request in requests:
            confidences = draw.choices(CONFIDENCES, k=4)
            count = accepted([truth[c] for c in confidences], draw)
            forecast.observe(request, draft(4, confidences), 4, stood(count))
        forecast.refresh()
        if step >= 200:
            for confidence in CONFIDENCES:
                sums[confidence] += sure_of(forecast, requests[0], confidence) / 1000
    assert forecast.informed
    assert sums == pytest.approx(truth, abs=0.08)


@pytest.mark.parametrize("confidence", [0.0, 1e-9, 0.5, 1 - 1e-9, 1.0])
def test_every_confidence_is_a_chance(confidence: float) -> None:
    forecast, request = Forecast(LENGTH, 0.65), stub()
    assert 0 < sure_of(forecast, request, confidence) < 1
    forecast.observe(request, draft(1, [confidence]), 1, stood(0))
    forecast.refresh()
    assert 0 < sure_of(forecast, request, confidence) < 1


def test_drafts_longer_than_what_is_told_apart() -> None:
    forecast, request = Forecast(4, 0.65), stub()
    forecast.observe(request, draft(9, [0.5] * 9), 9, stood(9))
    forecast.observe(request, draft(9), 9, stood(6))
    forecast.observe(request, draft(3), 9, stood(3))
    forecast.refresh()
    assert len(list(forecast.curve(request))) == 4


def test_what_a_price_is_told() -> None:
    """Nothing by position, before it is known that the drafter says how sure it is."""
    forecast, request, draw = Forecast(LENGTH, 0.65), stub(), random.Random(0)
    taught(forecast, [request], lambda _: [0.9] * LENGTH, 50, draw)
    assert forecast.reached(request) == ()
    forecast.observe(request, draft(1, [0.5]), 1, stood(1))
    forecast.refresh()
    assert forecast.reached(request) == pytest.approx(stands(forecast, request))
    assert len(forecast.sure(request)) == CONFIDENCE_CELLS


def far_safer_than_near() -> float:
    """How much safer than the first position the fifth looks, of requests that are good or bad throughout."""
    draw, requests = random.Random(0), [stub(n) for n in range(8)]
    forecast = Forecast(LENGTH, 0.65)
    truth = (0.9, 0.35)

    def teach() -> None:
        taught(forecast, requests, lambda n: [truth[n % 2]] * LENGTH, 1, draw)

    taught(forecast, requests, lambda n: [truth[n % 2]] * LENGTH, 200, draw)
    newcomer = stub(99)
    found = average(forecast, [newcomer], teach, 200)
    return found[4] - found[0]


def test_far_positions_do_not_look_safer_since_only_good_requests_reach_them() -> None:
    assert abs(far_safer_than_near()) < 0.08


def test_planted_fault_trials_that_all_count_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the good half reaches the fifth position, which then seems safe for all."""
    planted.count_trials_alike(monkeypatch)
    assert far_safer_than_near() > 0.15


def after_falls(forecast: Forecast, falls: int) -> Request:
    """A newcomer whose first tokens fall."""
    newcomer = stub(99)
    for _ in range(falls):
        forecast.observe(newcomer, draft(1), 1, stood(0))
    return newcomer


@pytest.mark.parametrize("chance", [0.6, 0.8])
def test_a_request_of_which_nothing_stands_is_known_by_a_few_tokens(chance: float) -> None:
    """And nothing of it is taken for the others'; a token that stands refutes it."""
    draw, forecast = random.Random(0), Forecast(LENGTH, 0.65)
    taught(forecast, [stub(n) for n in range(4)], lambda _: [chance] * LENGTH, 100, draw)
    newcomer = after_falls(forecast, 7)
    assert first(forecast, newcomer) < 0.2
    assert first(forecast, stub(5)) > chance - 0.1
    forecast.observe(newcomer, draft(1), 1, stood(1))
    assert first(forecast, newcomer) > 0.4


def test_planted_fault_of_a_request_that_is_never_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "HOPELESS", 0.0)
    with pytest.raises(AssertionError):
        test_a_request_of_which_nothing_stands_is_known_by_a_few_tokens(0.8)


def test_planted_fault_that_never_forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    planted.never_forget(monkeypatch)
    with pytest.raises(AssertionError):
        test_a_change_is_followed_more_than_half_of_the_way_within_25_drafts(0.9, 0.1)
