"""The acceptance rules keep the target's distribution, and the test that says so would see if not."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from outrider.sampling.distribution import Categorical, Greedy
from outrider.verification.accept import Verdict, block, coupled, standard
from outrider.verification.noise import Noise, Stream
from outrider.verification.rules import RULES, Acceptance, Spot
from tests.verification.chi_square import agrees
from tests.verification.toys import DRAFTERS, TARGET, VOCAB, Tokens, Toy

Rule = Callable[[Tensor, Tensor, Sequence[int], Tensor, Tensor], Verdict]

PURE: dict[str, Rule] = {"standard": standard, "block": block}

every_rule = pytest.mark.parametrize("rule", ["standard", "block"])
every_drafter = pytest.mark.parametrize("drafter", DRAFTERS)


pytestmark = pytest.mark.usefixtures("one_thread")


# The pure functions


@dataclass(frozen=True)
class Randomness:
    """All that `draws` verdicts use. draft: [draws, k, vocab]; recovery: [draws, k + 1, vocab]."""

    draft: Tensor
    uniforms: Tensor
    recovery: Tensor


def fresh(draws: int, k: int) -> Randomness:
    generator = torch.Generator().manual_seed(7)

    def gumbel(rows: int) -> Tensor:
        return -torch.empty(draws, rows, VOCAB).exponential_(generator=generator).log_()

    uniforms = torch.rand(draws, k, dtype=torch.float64, generator=generator)
    return Randomness(gumbel(k), uniforms, gumbel(k + 1))


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


def by_argmax(p: Tensor, q: Tensor, draft: Sequence[int], uniforms: Tensor, gumbel: Tensor) -> Verdict:
    """Planted fault: a draft stands if it is the target's likeliest token."""
    return coupled(p.argmax(dim=-1).tolist(), draft)


def from_target(p: Tensor, q: Tensor, draft: Sequence[int], uniforms: Tensor, gumbel: Tensor) -> Verdict:
    """Planted fault: the correction is a sample of the target, not of the residual."""
    verdict = standard(p, q, draft, uniforms, gumbel)
    i = verdict.accepted
    return Verdict(i, (*draft[:i], int((p[i].log() + gumbel[i]).argmax())))


@pytest.mark.parametrize("fault", [by_argmax, from_target])
@pytest.mark.parametrize("drafter", ["unlike", "gaps", "guess"])
def test_faulty_rule_is_caught(fault: Rule, drafter: str) -> None:
    counts = texts(fault, DRAFTERS[drafter], fresh(3000, 2), 3)
    assert not agrees(counts, TARGET.joint(3))


@every_rule
def test_recovery_with_the_noise_of_the_draft_is_caught(rule: str) -> None:
    randomness = fresh(4000, 1)
    shared = replace(randomness, recovery=torch.cat([randomness.draft, randomness.recovery[:, 1:]], dim=1))
    assert agrees(texts(PURE[rule], DRAFTERS["torn"], randomness, 1), TARGET.joint(1))
    assert not agrees(texts(PURE[rule], DRAFTERS["torn"], shared, 1), TARGET.joint(1))


@every_rule
def test_acceptance_with_the_noise_of_the_draft_is_caught(rule: str) -> None:
    """The uniforms are those behind the Gumbel noise of token 0, with which the draft was drawn."""
    randomness = fresh(3000, 2)
    shared = replace(randomness, uniforms=torch.exp(-torch.exp(-randomness.draft[:, :, 0].double())))
    assert agrees(texts(PURE[rule], DRAFTERS["eager"], randomness, 3), TARGET.joint(3))
    assert not agrees(texts(PURE[rule], DRAFTERS["eager"], shared, 3), TARGET.joint(3))


# The rules with the noise that the engine gives them


def one_round(rule: Acceptance, name: str, k: int, noise: Noise, text: Tokens = ()) -> Tokens:
    """`text` and what one draft of `k` tokens and its verdict add to it, as in the engine."""
    drafter = DRAFTERS[name]
    draft: Tokens = ()
    probs: list[Tensor] = []
    for _ in range(k):
        written = (*text, *draft)
        token, q = rule.propose(
            Categorical(drafter.scores(written)[None]), Spot(noise, len(text), len(draft))
        )
        assert q is not None
        draft, probs = (*draft, token), [*probs, q]
    target = torch.stack([TARGET.scores((*text, *draft[:i])) for i in range(k + 1)])
    judged = rule.judge(
        Categorical(target),
        draft,
        None if name == "guess" else torch.stack(probs),
        Spot(noise, len(text)),
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
    shared = SimpleNamespace(**{**Stream.__members__, stream: Stream.DRAFT})
    monkeypatch.setattr("outrider.verification.rules.Stream", shared)
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
    for name, seed in product(DRAFTERS, range(20)):
        plain: Tokens = ()
        while len(plain) < 5:
            plain = one_coupled_round(TARGET, 0, seed, plain)
        text: Tokens = ()
        while len(text) < 5:
            text = one_coupled_round(DRAFTERS[name], 3, seed, text)
        assert text[:5] == plain


def one_coupled_round(drafter: Toy, k: int, seed: int, text: Tokens) -> Tokens:
    rule, noise = RULES["coupled"], Noise(seed)
    draft: Tokens = ()
    for i in range(k):
        spot = Spot(noise, len(text), i)
        token, q = rule.propose(Categorical(drafter.scores((*text, *draft))[None]), spot)
        assert q is None
        draft = (*draft, token)
    target = torch.stack([TARGET.scores((*text, *draft[:i])) for i in range(k + 1)])
    return (*text, *rule.judge(Categorical(target), draft, None, Spot(noise, len(text))).tokens)


def test_coupled_drafter_that_is_the_target_is_always_right() -> None:
    for seed in range(50):
        assert len(one_coupled_round(TARGET, 3, seed, ())) == 4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("guessed", [False, True])
def test_temperature_zero_writes_the_likeliest_tokens(rule: str, guessed: bool) -> None:
    target = Greedy(torch.tensor([[0.0, 3.0, 1.0], [2.0, 2.0, 0.0], [0.0, 0.0, 1.0]]))
    for draft in product(range(3), repeat=2):
        probs = None if guessed else torch.eye(3, dtype=torch.float64)[list(draft)]
        verdict = RULES[rule].judge(target, draft, probs, Spot(Noise(3), 0))
        assert verdict.tokens == (1, 0, 2)[: len(verdict.tokens)]
        assert verdict.accepted == (2 if draft == (1, 0) else 1 if draft[0] == 1 else 0)


# Exact cases

PAPER_P = torch.tensor([[1, 2]] * 3, dtype=torch.float64) / 3
PAPER_Q = torch.tensor([[2, 1]] * 2, dtype=torch.float64) / 3
SILENCE = torch.zeros(3, 2)


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
            uniforms = torch.tensor(pair, dtype=torch.float64)
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
    p = torch.tensor([[0.5, 0.5], [0.25, 0.75]], dtype=torch.float64)
    q = torch.tensor([[0.25, 0.75]], dtype=torch.float64)
    uniforms = torch.tensor([uniform], dtype=torch.float64)
    assert PURE[rule](p, q, (1,), uniforms, torch.zeros(2, 2)) == verdict


@every_rule
@pytest.mark.parametrize("uniform", [0.0, 1 - 2.0**-53])
def test_what_the_target_never_says_falls(rule: str, uniform: float) -> None:
    p = torch.tensor([[1.0, 0.0], [0.5, 0.5]], dtype=torch.float64)
    q = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    uniforms = torch.tensor([uniform], dtype=torch.float64)
    assert PURE[rule](p, q, (1,), uniforms, torch.tensor([[-9.0, 9.0]] * 2)) == Verdict(0, (0,))


def test_block_keeps_the_whole_after_a_first_token_that_standard_refuses() -> None:
    """Draft (0, 1) of the paper's example: its weights are 1/2 and min(1, 1/2 * 2) = 1."""
    uniforms = torch.tensor([0.9, 0.9], dtype=torch.float64)
    assert standard(PAPER_P, PAPER_Q, (0, 1), uniforms, SILENCE) == Verdict(0, (1,))
    assert block(PAPER_P, PAPER_Q, (0, 1), uniforms, SILENCE) == Verdict(2, (0, 1, 1))


@every_rule
def test_without_a_draft_the_bonus_is_a_sample_of_the_target(rule: str) -> None:
    p = torch.tensor([[0.2, 0.8]], dtype=torch.float64)
    nothing = torch.empty(0, 2, dtype=torch.float64)
    uniforms = torch.empty(0, dtype=torch.float64)
    assert PURE[rule](p, nothing, (), uniforms, torch.zeros(1, 2)) == Verdict(0, (1,))
    assert PURE[rule](p, nothing, (), uniforms, torch.tensor([[2.0, 0.0]])) == Verdict(0, (0,))


# Properties

masses = st.lists(st.floats(0.01, 1), min_size=3, max_size=3)
below_one = st.floats(0, 1, exclude_max=True) | st.just(1 - 2.0**-53)
drafts = st.lists(st.integers(0, 2), max_size=4)


@every_rule
@given(draft=drafts, data=st.data())
def test_a_draft_of_the_target_itself_stands(rule: str, draft: list[int], data: st.DataObject) -> None:
    k = len(draft)
    rows = data.draw(st.lists(masses, min_size=k + 1, max_size=k + 1))
    p = torch.tensor(rows, dtype=torch.float64)
    p /= p.sum(dim=-1, keepdim=True)
    uniforms = torch.tensor(data.draw(st.lists(below_one, min_size=k, max_size=k)), dtype=torch.float64)
    verdict = PURE[rule](p, p[:k], draft, uniforms, torch.zeros(k + 1, 3))
    assert verdict == Verdict(k, (*draft, int(p[k].argmax())))


@every_rule
@given(draft=drafts, seed=st.integers(0, 2**32))
def test_verdict_is_a_prefix_of_the_draft_and_one_token(rule: str, draft: list[int], seed: int) -> None:
    k = len(draft)
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(k + 1, 3, generator=generator, dtype=torch.float64).softmax(dim=-1)
    q = torch.rand(k, 3, generator=generator, dtype=torch.float64).softmax(dim=-1)
    uniforms = torch.rand(k, generator=generator, dtype=torch.float64)
    verdict = PURE[rule](p, q, draft, uniforms, torch.rand(k + 1, 3, generator=generator))
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
    generator = torch.Generator().manual_seed(7)
    accepted = Counter[str]()
    for _ in range(150):
        p = (2 * torch.randn(4, VOCAB, generator=generator, dtype=torch.float64)).softmax(dim=-1)
        q = (2 * torch.randn(3, VOCAB, generator=generator, dtype=torch.float64)).softmax(dim=-1)
        for draft in torch.multinomial(q, 20, replacement=True, generator=generator).T.tolist():
            uniforms = torch.rand(3, generator=generator, dtype=torch.float64)
            for name, rule in PURE.items():
                accepted[name] += rule(p, q, draft, uniforms, torch.zeros(4, VOCAB)).accepted
    assert accepted["block"] > 1.05 * accepted["standard"]
