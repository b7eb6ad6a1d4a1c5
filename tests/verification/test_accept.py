"""The acceptance rules keep the target's distribution, and the test that says so would see if not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from outrider.ops.choice import Choice, Filters, NoToken
from outrider.ops.torch.choose import TorchRows, choose
from outrider.verification.accept import Verdict, block, coupled, standard
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import RULES, Acceptance, Round
from tests import planted
from tests.verification.chi_square import agrees
from tests.verification.toys import DRAFTERS, TARGET, VOCAB, Scores, Shares, Tokens, Toy, softmax

Rule = Callable[[Shares, Shares, Sequence[int], Shares, Scores], Verdict]

PURE: dict[str, Rule] = {"standard": standard, "block": block}

PLAIN = Filters(1.0)

every_rule = pytest.mark.parametrize("rule", ["standard", "block"])
every_drafter = pytest.mark.parametrize("drafter", DRAFTERS)


pytestmark = pytest.mark.usefixtures("one_thread")


# The pure functions


@dataclass(frozen=True)
class Randomness:
    """All that `draws` verdicts use. draft: [draws, k, vocab]; recovery: [draws, k + 1, vocab]."""

    draft: Scores
    uniforms: Shares
    recovery: Scores


def fresh(draws: int, k: int) -> Randomness:
    draw = np.random.default_rng(7)

    def gumbel(rows: int) -> Scores:
        return draw.gumbel(size=(draws, rows, VOCAB)).astype(np.float32)

    return Randomness(gumbel(k), draw.random((draws, k)), gumbel(k + 1))


def texts(rule: Rule, drafter: Toy, randomness: Randomness, length: int) -> Counter[Tokens]:
    """Texts of `length` tokens: one verdict each, completed by sampling the target."""
    counts: Counter[Tokens] = Counter()
    generator = random.Random(7)
    k = randomness.draft.shape[1]
    for noise, uniforms, recovery in zip(
        randomness.draft, randomness.uniforms, randomness.recovery, strict=True
    ):
        draft: Tokens = ()
        for row in noise:
            draft = (*draft, int((drafter.scores(draft) + row).argmax()))
        verdict = rule(TARGET.rows(draft, k + 1), drafter.rows(draft, k), draft, uniforms, recovery)
        counts[TARGET.continued(verdict.tokens, length, generator)] += 1
    return counts


@every_rule
@every_drafter
@pytest.mark.parametrize("k", [1, 3])
def test_rule_keeps_the_joint_distribution(rule: str, drafter: str, k: int) -> None:
    counts = texts(PURE[rule], DRAFTERS[drafter], fresh(1500, k), k + 1)
    assert agrees(counts, TARGET.joint(k + 1))


def by_argmax(p: Shares, q: Shares, draft: Sequence[int], uniforms: Shares, gumbel: Scores) -> Verdict:
    """Planted fault: a draft stands if it is the target's likeliest token."""
    return coupled(p.argmax(axis=-1).tolist(), draft)


def from_target(p: Shares, q: Shares, draft: Sequence[int], uniforms: Shares, gumbel: Scores) -> Verdict:
    """Planted fault: the correction is a sample of the target, not of the residual."""
    verdict = standard(p, q, draft, uniforms, gumbel)
    i = verdict.accepted
    with np.errstate(divide="ignore"):
        return Verdict(i, (*draft[:i], int((np.log(p[i]) + gumbel[i]).argmax())))


@pytest.mark.parametrize("fault", [by_argmax, from_target])
@pytest.mark.parametrize("drafter", ["unlike", "gaps", "guess"])
def test_faulty_rule_is_caught(fault: Rule, drafter: str) -> None:
    counts = texts(fault, DRAFTERS[drafter], fresh(3000, 2), 3)
    assert not agrees(counts, TARGET.joint(3))


@every_rule
def test_recovery_with_the_noise_of_the_draft_is_caught(rule: str) -> None:
    randomness = fresh(4000, 1)
    shared = replace(
        randomness, recovery=np.concatenate([randomness.draft, randomness.recovery[:, 1:]], axis=1)
    )
    assert agrees(texts(PURE[rule], DRAFTERS["torn"], randomness, 1), TARGET.joint(1))
    assert not agrees(texts(PURE[rule], DRAFTERS["torn"], shared, 1), TARGET.joint(1))


@every_rule
def test_acceptance_with_the_noise_of_the_draft_is_caught(rule: str) -> None:
    """The uniforms are those behind the Gumbel noise of token 0, with which the draft was drawn."""
    randomness = fresh(3000, 2)
    shared = replace(randomness, uniforms=np.exp(-np.exp(-randomness.draft[:, :, 0].astype(np.float64))))
    assert agrees(texts(PURE[rule], DRAFTERS["eager"], randomness, 3), TARGET.joint(3))
    assert not agrees(texts(PURE[rule], DRAFTERS["eager"], shared, 3), TARGET.joint(3))


# The rules with the noise that the engine gives them


def one_round(rule: Acceptance, name: str, k: int, noise: Noise, text: Tokens = ()) -> Tokens:
    """`text` and what one draft of `k` tokens and its verdict add to it, as in the engine."""
    drafter = DRAFTERS[name]
    draft, start = list[int](), len(text)
    for _ in range(k):
        written = (*text, *draft)
        choice = Choice(1, PLAIN, rule.draft_key(noise, start), len(written))
        draft += choose(torch.from_numpy(drafter.scores(written))[None], choice)
    logits = torch.from_numpy(np.stack([TARGET.scores((*text, *draft[:i])) for i in range(k + 1)]))
    choice = Choice(k + 1, PLAIN, noise.key(Stream.TOKEN), start)
    probs = np.stack([drafter.probabilities((*text, *draft[:i])) for i in range(k)]) if k else None
    judged = rule.judge(
        Round(
            choose(logits, choice),
            TorchRows(logits, choice) if rule.looks else None,
            draft,
            probs if rule.looks and name != "guess" else None,
            noise,
            start,
        )
    )
    return (*text, *judged.tokens)


def drawn(rule: str, drafter: str, k: int, draws: int, length: int) -> Counter[Tokens]:
    """As `texts`, with the streams of a seed of its own for every draw."""
    generator = random.Random(7)
    rounds = (one_round(RULES[rule], drafter, k, Noise(seed)) for seed in range(draws))
    return Counter(TARGET.continued(text, length, generator) for text in rounds)


@every_rule
@every_drafter
def test_rule_with_its_streams_keeps_the_joint_distribution(rule: str, drafter: str) -> None:
    assert agrees(drawn(rule, drafter, k=2, draws=500, length=3), TARGET.joint(3))


@every_rule
@pytest.mark.parametrize(
    ("stream", "drafter", "length", "draws"), [("RECOVER", "torn", 1, 6000), ("ACCEPT", "eager", 2, 2000)]
)
def test_sharing_the_stream_of_the_draft_is_caught(
    rule: str, stream: str, drafter: str, length: int, draws: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.share_stream(monkeypatch, stream)
    assert not agrees(drawn(rule, drafter, length, draws, length), TARGET.joint(length))


@pytest.mark.parametrize(
    ("rule", "drafter"),
    [
        ("standard", "sure"),
        ("standard", "eager"),
        ("block", "sure"),
        ("block", "eager"),
    ],
)
def test_rounds_one_after_the_other_keep_the_joint_distribution(rule: str, drafter: str) -> None:
    """A text of several drafts: `block` looks at noise beyond what it keeps, which must not be used again."""
    counts: Counter[Tokens] = Counter()
    for seed in range(1500):
        text: Tokens = ()
        while len(text) < 3:
            text = one_round(RULES[rule], drafter, 2, Noise(seed), text)
        counts[text[:3]] += 1
    assert agrees(counts, TARGET.joint(3))


def test_coupled_writes_the_tokens_of_plain_decoding() -> None:
    rule = RULES["coupled"]
    for name, seed in product(DRAFTERS, range(20)):
        plain: Tokens = ()
        while len(plain) < 5:
            plain = one_round(rule, "right", 0, Noise(seed), plain)
        text: Tokens = ()
        while len(text) < 5:
            text = one_round(rule, name, 3, Noise(seed), text)
        assert text[:5] == plain


def test_coupled_drafter_that_is_the_target_is_always_right() -> None:
    for seed in range(50):
        assert len(one_round(RULES["coupled"], "right", 3, Noise(seed))) == 4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("guessed", [False, True])
def test_temperature_zero_writes_the_likeliest_tokens(rule: str, guessed: bool) -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]])
    choice = Choice(3)
    for draft in product(range(3), repeat=2):
        probs = None if guessed else np.eye(3)[list(draft)]
        verdict = RULES[rule].judge(
            Round(choose(logits, choice), TorchRows(logits, choice), draft, probs, Noise(3), 0)
        )
        assert verdict.tokens == (1, 0, 2)[: len(verdict.tokens)]
        assert verdict.accepted == (2 if draft == (1, 0) else 1 if draft[0] == 1 else 0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("why", NoToken)
def test_a_draft_that_leads_to_a_row_without_a_token(rule: str, why: NoToken) -> None:
    """What stood before it stands; a draft that falls there is no matter."""
    value = {NoToken.NAN: np.nan, NoToken.INFINITE: np.inf, NoToken.NOTHING: -np.inf}[why]
    logits = torch.tensor([[0.0, 9.0, 0.0], [value] * 3, [0.0, 0.0, 9.0]])
    choice, draft = Choice(3), (1, 2)
    chosen = choose(logits, choice)
    assert chosen == [1, why, 2]

    def judged(chosen: Sequence[int], draft: Sequence[int]) -> Verdict:
        rows = TorchRows(logits, replace(choice, rows=len(chosen)))
        return RULES[rule].judge(Round(chosen, rows, draft, None, Noise(1), 0))

    assert judged(chosen, draft) == Verdict(1, (1,), stuck=True)
    assert judged(chosen, (2, 2)) == Verdict(0, (1,))
    assert judged(chosen[1:], ()).stuck


@pytest.mark.parametrize("rule", RULES)
def test_where_the_target_is_not_asked_the_draft_ends(rule: str) -> None:
    """As behind a row for which a grammar is not ready."""
    logits = torch.tensor([[0.0, 9.0, 0.0], [0.0, 0.0, 9.0]])
    choice = Choice(2)
    for draft, verdict in (
        ((1, 2, 0), Verdict(2, (1, 2), stuck=True)),
        ((1, 0, 0), Verdict(1, (1, 2))),
        ((0, 2, 0), Verdict(0, (1,))),
    ):
        round = Round(choose(logits, choice), TorchRows(logits, choice), draft, None, Noise(1), 0)
        found = RULES[rule].judge(round)
        assert found == verdict


# Exact cases

PAPER_P = np.array([[1, 2]] * 3) / 3
PAPER_Q = np.array([[2, 1]] * 2) / 3
SILENCE = np.zeros((3, 2), np.float32)


@pytest.mark.parametrize(("rule", "ninths"), [("standard", 10), ("block", 11)])
def test_expected_acceptance_of_the_example_in_the_paper(rule: str, ninths: int) -> None:
    """Two tokens, target (1/3, 2/3), draft (2/3, 1/3), k = 2 (Sun et al., 2025).

    All thresholds are quarters, so that the middles of quarters integrate over the uniforms exactly.
    """
    middles = [(i + 0.5) / 4 for i in range(4)]
    expectation = 0.0
    for draft in product(range(2), repeat=2):
        mass = float(PAPER_Q[0, draft[0]] * PAPER_Q[1, draft[1]])
        for pair in product(middles, repeat=2):
            uniforms = np.array(pair)
            expectation += mass / 16 * PURE[rule](PAPER_P, PAPER_Q, draft, uniforms, SILENCE).accepted
    assert expectation == pytest.approx(ninths / 9)


@pytest.mark.parametrize(
    ("uniform", "verdict"),
    [(0.66, Verdict(1, (1, 1))), (0.67, Verdict(0, (0,)))],
)
@every_rule
def test_one_token_stands_with_the_ratio_of_the_probabilities(
    rule: str, uniform: float, verdict: Verdict
) -> None:
    """p = 1/2, q = 3/4: it stands below 2/3, and the residual (1/4, 0) leaves only token 0."""
    p = np.array([[0.5, 0.5], [0.25, 0.75]])
    q = np.array([[0.25, 0.75]])
    uniforms = np.array([uniform])
    assert PURE[rule](p, q, (1,), uniforms, SILENCE[:2]) == verdict


@every_rule
@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
def test_what_the_target_never_says_falls(rule: str, uniform: float) -> None:
    p = np.array([[1.0, 0.0], [0.5, 0.5]])
    q = np.array([[0.5, 0.5]])
    uniforms = np.array([uniform])
    assert PURE[rule](p, q, (1,), uniforms, np.array([[-9.0, 9.0]] * 2, np.float32)) == Verdict(0, (0,))


def test_block_keeps_the_whole_after_a_first_token_that_standard_refuses() -> None:
    """Draft (0, 1) of the paper's example: its weights are 1/2 and min(1, 1/2 * 2) = 1."""
    uniforms = np.array([0.9, 0.9])
    assert standard(PAPER_P, PAPER_Q, (0, 1), uniforms, SILENCE) == Verdict(0, (1,))
    assert block(PAPER_P, PAPER_Q, (0, 1), uniforms, SILENCE) == Verdict(2, (0, 1, 1))


@every_rule
def test_without_a_draft_the_bonus_is_a_sample_of_the_target(rule: str) -> None:
    p = np.array([[0.2, 0.8]])
    nothing = np.empty((0, 2))
    uniforms = np.empty(0)
    assert PURE[rule](p, nothing, (), uniforms, SILENCE[:1]) == Verdict(0, (1,))
    assert PURE[rule](p, nothing, (), uniforms, np.array([[2.0, 0.0]], np.float32)) == Verdict(0, (0,))


# Properties

masses = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
below_one = st.floats(0, 1, exclude_max=True) | st.just(1 - 2.0**-53)
drafts = st.lists(st.integers(0, 2), max_size=4)


@every_rule
@given(draft=drafts, data=st.data())
def test_a_draft_of_the_target_itself_stands(rule: str, draft: list[int], data: st.DataObject) -> None:
    k = len(draft)
    rows = data.draw(st.lists(masses, min_size=k + 1, max_size=k + 1))
    p = np.array(rows)
    p /= p.sum(axis=-1, keepdims=True)
    uniforms = np.array(data.draw(st.lists(below_one, min_size=k, max_size=k)))
    verdict = PURE[rule](p, p[:k], draft, uniforms, np.zeros((k + 1, 3), np.float32))
    assert verdict == Verdict(k, (*draft, int(p[k].argmax())))


@every_rule
@given(draft=drafts, seed=st.integers(0, 2**32))
def test_verdict_is_a_prefix_of_the_draft_and_one_token(rule: str, draft: list[int], seed: int) -> None:
    k = len(draft)
    generator = np.random.default_rng(seed)
    p, q = (generator.dirichlet(np.ones(3), rows) for rows in (k + 1, k))
    verdict = PURE[rule](p, q, draft, generator.random(k), generator.random((k + 1, 3), np.float32))
    assert 0 <= verdict.accepted <= k
    assert len(verdict.tokens) == verdict.accepted + 1
    assert verdict.tokens[:-1] == tuple(draft[: verdict.accepted])


@given(draft=drafts, data=st.data())
def test_coupled_keeps_the_longest_common_prefix(draft: list[int], data: st.DataObject) -> None:
    k = len(draft)
    guesses = st.lists(st.integers(0, 2), min_size=k + 1, max_size=k + 1)
    target = data.draw(guesses | st.just([*draft, 0]))
    common = next((i for i in range(k) if draft[i] != target[i]), k)
    assert coupled(target, draft) == Verdict(common, tuple(target[: common + 1]))


def test_block_accepts_more_than_standard_in_expectation() -> None:
    generator = np.random.default_rng(7)
    accepted = Counter[str]()
    for _ in range(150):
        p, q = (
            np.stack([softmax(row) for row in 2 * generator.standard_normal((rows, VOCAB), np.float32)])
            for rows in (4, 3)
        )
        for draft in np.stack([generator.choice(VOCAB, 20, p=row) for row in q]).T.tolist():
            uniforms = generator.random(3)
            for name, rule in PURE.items():
                accepted[name] += rule(p, q, draft, uniforms, np.zeros((4, VOCAB), np.float32)).accepted
    assert accepted["block"] > 1.05 * accepted["standard"]
