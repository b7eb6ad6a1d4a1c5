"""Costs that were kept: thrown away where they are not true, and followed where they become so.

The machine is simulated: its clock goes by what passes and drafts are said to take, and by nothing else.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from platformdirs import user_cache_path

from outrider import SamplingParams
from outrider.config import resolve
from outrider.drafting import registry
from outrider.drafting.auto import AutoLength
from outrider.drafting.base import Draft
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.engine import policy
from outrider.engine.build import build_engine
from outrider.engine.engine import Engine
from outrider.engine.profile import USUAL, Measuring
from outrider.engine.request import Request
from outrider.models.runner import ModelRunner
from outrider.ops.budget import Budget
from outrider.ops.span import Span
from tests.engine.helpers import PROMPTS, cost_files, expected, token_ids
from tests.fakes import Memoryless
from tests.watchers import before_passes

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)
PASSES = TargetCost(COUNTS, [(10 + 0.2 * (count - 1)) / 1000 for count in COUNTS])
DRAFTS = DraftCost(1e-3, 2e-5)
CHANCE = 0.8
PROMPT = PROMPTS[0]
LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)


@dataclass
class Machine:
    """Its time. disturbed: whether the next pass takes three times as long; measured: how often it was."""

    now: float = 0.0
    measured: int = 0
    disturbed: Callable[[], bool] = lambda: False

    def clock(self) -> float:
        return self.now

    def spend(self, seconds: float) -> None:
        self.now += seconds * (3 if self.disturbed() else 1)


@dataclass
class Replay(Memoryless):
    """Drafts the target's own answer, spoilt now and then. What the machine has measured is no answer."""

    machine: Machine
    answer: Sequence[int]
    seen: list[int] = field(default_factory=list)

    def draft(self, requests: Sequence[Request], budgets: Sequence[Budget]) -> list[Draft]:
        drafts = [self._draft(request, budget) for request, budget in zip(requests, budgets, strict=True)]
        lengths = [len(draft.tokens) for draft in drafts]
        self.machine.spend(DRAFTS.foreseen(len(drafts), sum(lengths), max(lengths), 0))
        return drafts

    def _draft(self, request: Request, budget: Budget) -> Draft:
        """To its length, since it does not say how sure it is."""
        tokens: list[int] = []
        while len(tokens) < budget.length:
            at = len(request.tokens) - len(PROMPT) + len(tokens)
            right = random.Random(at).random() < CHANCE and at < len(self.answer)
            tokens.append(self.answer[at] if right else 0)
        return Draft(tuple(tokens))


@pytest.fixture
def machine(target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """On which passes take PASSES and the drafter "ngram" is a `Replay`; nothing is kept yet."""
    machine = Machine()
    (answer,) = token_ids(expected(target, PROMPT, LONG))

    def spend(_: ModelRunner, spans: Sequence[Span]) -> None:
        machine.spend(PASSES.one_pass(sum(len(span.tokens) for span in spans)))

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before_passes(monkeypatch, spend)
    replay = registry.Cacheless(lambda: Replay(machine, answer))
    monkeypatch.setitem(registry.SOURCES, "suffix", lambda *_: replay)
    return machine


def build(target: str, machine: Machine, measuring: Measuring = USUAL, **options: Any) -> Engine:
    """An engine; it was measured if its costs have been written."""
    config = resolve(target, device="cpu", speculative_model="ngram", **options)
    before = cost_files()
    engine = build_engine(config, clock=machine.clock, measuring=measuring)
    machine.measured += cost_files() != before
    return engine


def policy_of(engine: Engine) -> AutoLength:
    found = engine.scheduler.policy
    assert isinstance(found, AutoLength)
    return found


@dataclass(frozen=True)
class Wrong:
    """A profile in which all passes, those of some rows, and drafts take so many times longer."""

    level: float = 1.0
    rows: float = 1.0
    first: int = 2
    last: int = 96
    drafts: float = 1.0

    def save(self) -> None:
        """In place of what was kept."""
        (path,) = (user_cache_path("outrider") / "costs").iterdir()
        contents = json.loads(path.read_text())
        target = contents["target"]
        target["seconds"] = [
            self.level * seconds * (self.rows if self.first <= count <= self.last else 1.0)
            for count, seconds in zip(target["counts"], target["seconds"], strict=True)
        ]
        for drafter in contents["drafters"]:
            drafter |= {name: self.drafts * seconds for name, seconds in drafter.items()}
        path.write_text(json.dumps(contents))


FLAT = Wrong(rows=1 / 3)
"""More rows never cost less than one, so that this is off by no more than a third."""
FOLLOWED = {
    "passes four times too dear": Wrong(level=4),
    "passes four times too cheap": Wrong(level=0.25),
    "drafts five times too dear": Wrong(drafts=5),
    "drafts five times too cheap": Wrong(drafts=0.2),
    "verification three times too dear": Wrong(rows=3),
    "rows that cost nothing": FLAT,
    "verification and drafts too dear": Wrong(rows=4, drafts=5),
    "verification and drafts too cheap": Wrong(rows=0.25, drafts=0.2),
    "passes too dear and drafts too cheap": Wrong(level=4, drafts=0.2),
    "passes too cheap and drafts too dear": Wrong(level=0.25, drafts=5),
}
CAUGHT = {name: wrong for name, wrong in FOLLOWED.items() if wrong != FLAT} | {
    "four rows three times too dear": Wrong(rows=3, first=4, last=4),
    "four rows and more three times too dear": Wrong(rows=3, first=4),
}


def decided(engine: Engine, after: int = 64, steps: int = 32) -> float:
    """Expected tokens a second, on this machine, of what is decided after so many tokens."""
    request_id = engine.add(PROMPT, LONG)
    tokens = seconds = 0.0
    written = counted = 0
    while counted < steps:
        (increment,) = engine.step()
        if written >= after:
            counted += 1
            tokens += sum(CHANCE**n for n in range(increment.drafted + 1))
            seconds += PASSES.one_pass(1 + increment.drafted) + increment.drafted * (1e-3 + 2e-5)
        written += len(increment.token_ids)
    engine.discard(request_id)
    return tokens / seconds


@pytest.fixture
def fresh(target: str, machine: Machine) -> float:
    """What an engine decides that has just measured; its costs are kept."""
    return decided(build(target, machine))


def test_what_is_measured_is_true_and_kept(target: str, machine: Machine) -> None:
    for _ in range(2):
        found = policy_of(build(target, machine))
        assert [found.target.one_pass(n) for n in COUNTS] == pytest.approx(
            [PASSES.one_pass(n) for n in COUNTS]
        )
        cost = found.links[0].cost
        assert (cost.fixed, cost.each) == pytest.approx((DRAFTS.fixed, DRAFTS.each))
    assert machine.measured == 1


@pytest.mark.parametrize("wrong", CAUGHT.values(), ids=CAUGHT)
def test_a_wrong_profile_is_thrown_away(target: str, machine: Machine, fresh: float, wrong: Wrong) -> None:
    wrong.save()
    machine.measured = 0
    began = machine.now
    engine = build(target, machine)
    assert machine.measured == 1
    assert machine.now - began < 3 * USUAL.seconds
    assert decided(engine) >= 0.95 * fresh
    build(target, machine)  # and replaced
    assert machine.measured == 1


def test_checking_what_is_true_takes_a_few_passes(target: str, machine: Machine, fresh: float) -> None:
    began = machine.now
    build(target, machine)
    assert machine.now - began < 20 * PASSES.one_pass(1)


@pytest.mark.parametrize("wrong", FOLLOWED.values(), ids=FOLLOWED)
def test_a_profile_that_turns_wrong_is_followed(
    target: str, machine: Machine, fresh: float, wrong: Wrong
) -> None:
    """As when the machine changes after the check."""
    wrong.save()
    machine.measured = 0
    engine = build(target, machine, Measuring(agrees=math.inf))
    assert not machine.measured
    assert decided(engine) >= 0.95 * fresh


@pytest.mark.parametrize("share", [0.3, 0.5])
def test_a_busy_machine_is_measured_as_if_it_were_not(target: str, machine: Machine, share: float) -> None:
    """Passes and drafts that are disturbed now and then; and what is true is not thrown away for them."""
    draw = random.Random(0)
    machine.disturbed = lambda: draw.random() < share
    costs = policy_of(build(target, machine)).target
    assert [costs.one_pass(n) for n in COUNTS] == pytest.approx([PASSES.one_pass(n) for n in COUNTS], rel=0.2)
    for _ in range(5):
        build(target, machine)
    assert machine.measured == 1


def test_what_was_kept_under_load_is_measured_again(target: str, machine: Machine) -> None:
    machine.disturbed = lambda: True
    build(target, machine)
    machine.disturbed = lambda: False
    costs = policy_of(build(target, machine)).target
    assert machine.measured == 2
    assert costs.one_pass(1) == pytest.approx(PASSES.one_pass(1))


def test_another_build_is_measured(
    target: str, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has the same version, and the bytes of its kernels tell."""
    native = tmp_path / "_native.so"
    module = SimpleNamespace(__file__=str(native))
    native.write_bytes(b"one")
    monkeypatch.setattr(policy, "extension", SimpleNamespace(require=lambda: module))
    for contents, times in ((b"one", 1), (b"two", 2), (b"one", 2)):
        native.write_bytes(contents)
        build(target, machine)
        assert machine.measured == times


@pytest.mark.parametrize("package", ["outrider", "torch", "python"])
def test_other_versions_are_measured(
    target: str, machine: Machine, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    """PyTorch's matters where it computes."""
    options: dict[str, Any] = {"backend": "torch"} if package == "torch" else {}
    build(target, machine, **options)
    if package == "python":
        monkeypatch.setattr("platform.python_version", lambda: "99")
    else:
        monkeypatch.setattr(policy, "version", lambda name: "99" if name == package else version(name))
    build(target, machine, **options)
    assert machine.measured == 2


def test_drafters_have_the_names_that_users_gave(target: str, draft: str) -> None:
    config = resolve(target, device="cpu", speculative_model=["ngram", draft])
    assert [link.name for link in policy_of(build_engine(config)).links] == ["suffix", draft]
