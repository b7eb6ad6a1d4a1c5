"""Faults that tests plant, to see that they are caught. Each stays until the test ends."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from itertools import count
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from outrider import LLM
from outrider.cache import table
from outrider.cache.groups import blocks_behind
from outrider.cache.pool import BlockPool
from outrider.cache.states import StateTable
from outrider.cache.table import BlockTable
from outrider.drafting import forecast
from outrider.drafting.forecast import Base
from outrider.drafting.grow import Growing
from outrider.drafting.head import HeadDrafter, UnreadStates
from outrider.engine import verify
from outrider.engine.engine import Engine
from outrider.engine.request import Request, RequestGroup
from outrider.engine.scheduler import Schedule, Scheduler
from outrider.engine.verify import Judged
from outrider.models.runner import ModelRunner
from outrider.ops.choice import Choice
from outrider.ops.lane import Grown
from outrider.ops.span import Span
from outrider.ops.torch import states
from outrider.sampling.grammar import InGrammar
from outrider.verification import rules
from outrider.verification.accept import Verdict
from outrider.verification.noise import Stream
from outrider.verification.rules import Coupled, Round

ALWAYS: Callable[[int], bool] = lambda number: True  # noqa: E731

# Anywhere in an engine


def fail(
    monkeypatch: pytest.MonkeyPatch,
    owner: Any,
    name: str,
    fails: Callable[[int], bool] = ALWAYS,
    *,
    late: bool = False,
    error: type[BaseException] = ZeroDivisionError,
) -> None:
    """A function raises in those of its calls that `fails` names by number; late: after its work."""
    sound, calls = getattr(owner, name), count()

    def faulty(*arguments: Any, **others: Any) -> Any:
        number = next(calls)
        if fails(number) and not late:
            raise error("planted")
        result = sound(*arguments, **others)
        if fails(number):
            raise error("planted")
        return result

    monkeypatch.setattr(owner, name, faulty)


def fail_of(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, broken: Container[int]) -> None:
    """A method raises, of those objects whose `id` is in `broken` by then."""
    sound = getattr(kind, name)

    def faulty(self: Any, *arguments: Any, **others: Any) -> Any:
        if id(self) in broken:
            raise ZeroDivisionError("planted")
        return sound(self, *arguments, **others)

    monkeypatch.setattr(kind, name, faulty)


def fail_passes(monkeypatch: pytest.MonkeyPatch, llm: LLM, fails: Callable[[Sequence[Span]], bool]) -> None:
    """The target's pass raises over some spans."""
    sound = llm.engine.target.step

    def step(spans: Sequence[Span], choices: Any, **others: Any) -> Any:
        if fails(spans):
            raise ZeroDivisionError("planted")
        return sound(spans, choices, **others)

    monkeypatch.setattr(llm.engine.target, "step", step)


def spoil_requests(monkeypatch: pytest.MonkeyPatch, llm: LLM, spoil: Callable[[Request], None]) -> None:
    """Something in a request is not as it was prepared, when it is queued."""
    sound = llm.engine.queue

    def queue(group: RequestGroup) -> str:
        for request in group.requests:
            spoil(request)
        return sound(group)

    monkeypatch.setattr(llm.engine, "queue", queue)


# Verification


def believe_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first token of every draft stands, whatever the target says."""
    judge = Coupled.judge

    def believe(self: Coupled, round: Round) -> Verdict:
        verdict, draft = judge(self, round), round.draft
        return verdict if verdict.accepted or not draft else Verdict(1, (draft[0], *verdict.tokens))

    monkeypatch.setattr(Coupled, "judge", believe)


def read_noise_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verification reads its noise one position late."""

    def late(*told: Any) -> Choice:
        choice = Choice(*told)
        return replace(choice, position=choice.position + 1)

    monkeypatch.setattr(verify, "Choice", late)


def drop_token(monkeypatch: pytest.MonkeyPatch, token: int) -> None:
    """A draft ends before this token, whatever it was drawn with: by what a token turned out to be."""
    add = Growing.add

    def peeking(self: Growing, grown: Grown) -> None:
        add(self, grown)
        if self.tokens and self.tokens[-1] == token:
            self.tokens.pop()
            self.probs.pop()
            self.complete = True

    monkeypatch.setattr(Growing, "add", peeking)


def share_stream(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    """A rule of acceptance draws with the stream of the draft, in place of this one of its own."""
    shared = SimpleNamespace(**{**Stream.__members__, stream: Stream.DRAFT})
    monkeypatch.setattr(rules, "Stream", shared)


def trust_drafts(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> None:
    """The rule that this module knows as `coupled` takes every draft as a whole."""

    def trusting(chosen: list[int], draft: list[int]) -> Verdict:
        return Verdict(len(draft), (*draft, chosen[-1]))

    monkeypatch.setattr(module, "coupled", trusting)


# Drafting


def count_trials_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast counts every trial in full, however likely it was to be reached."""
    add = Base.add
    monkeypatch.setattr(Base, "add", lambda self, cells, fell, factor: add(self, cells, fell, 1.0))


def never_forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forecast has one memory, and that is long."""
    monkeypatch.setattr(forecast, "MEMORIES", (0.9999,))


def read_states_of_the_position_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head reads the target's state of one position earlier."""
    add = UnreadStates.add

    def shifted(self: UnreadStates, first: int, states: Any) -> None:
        add(self, first, self.backend.join([states[:1], states[:-1]]))

    monkeypatch.setattr(UnreadStates, "add", shifted)


def read_tokens_a_position_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head reads the token at the position of a state, and not the one after it."""
    go_on = Growing.go_on

    def early(self: Growing, tokens: Sequence[int], *told: Any, **others: Any) -> Any:
        if not self.tokens:
            end = len(self.request.tokens) - 1
            tokens = self.request.tokens[end - len(tokens) : end]
        return go_on(self, tokens, *told, **others)

    monkeypatch.setattr(Growing, "go_on", early)


def keep_rows_of_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head's rows of drafted tokens stay in its cache when the target's states have come."""
    draft = HeadDrafter.draft

    def without_settling(self: HeadDrafter, *told: Any) -> Any:
        with pytest.MonkeyPatch.context() as within:
            within.setattr(BlockTable, "settle", lambda *_: None)
            return draft(self, *told)

    monkeypatch.setattr(HeadDrafter, "draft", without_settling)


def keep_grammars_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """No grammar is ever ready to say what may follow."""
    monkeypatch.setattr(InGrammar, "prepare", lambda *_: False)


# Trees


def give_rows_noise_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a tree have the noise of a chain's, and not that of their positions."""
    monkeypatch.setattr(verify, "Choice", lambda *told: replace(Choice(*told), offsets=()))


def leave_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """K and V of an accepted path stay where they were."""
    monkeypatch.setattr(ModelRunner, "keep", lambda *_: None)


def show_siblings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of a tree see all rows before them."""
    monkeypatch.setattr(verify, "Span", lambda *fields: replace(Span(*fields), parents=()))


def take_first_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of a step are those of its first rows, and not of the accepted path."""
    first = property(lambda judged: judged.states[: judged.work.count + judged.verdict.accepted])
    monkeypatch.setattr(Judged, "computed", first)


def leave_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """The states of an accepted path stay at the places of the tree."""
    monkeypatch.setattr(StateTable, "move", lambda *_: None)


def begin_with_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """In PyTorch, a row of a tree begins with the states after the row before it, whichever it follows."""
    requests = states._requests

    def in_order(x: Any, cache: Any, batch: Any) -> Any:
        for rows, before, span in requests(x, cache, batch):
            yield rows, before, replace(span, parents=())

    monkeypatch.setattr(states, "_requests", in_order)


# Scheduling


def serve_shortest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests go on in order of what they lack, and not of their turn."""
    schedule = Scheduler.schedule

    def shortest_first(self: Scheduler) -> Schedule:
        self.waiting.sort(key=lambda request: request.pending)
        self.running.sort(key=lambda request: request.pending)
        return schedule(self)

    monkeypatch.setattr(Scheduler, "schedule", shortest_first)


# The cache


def share_unequal_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block is found by its own tokens, whatever came before it."""

    def without_parent(self: BlockTable, before: Any, tokens: Any, index: int) -> bytes:
        return str(list(tokens[index * 16 : (index + 1) * 16])).encode()

    monkeypatch.setattr(BlockTable, "_digest", without_parent)


def give_blocks_back(monkeypatch: pytest.MonkeyPatch, early: int) -> None:
    """Blocks behind a window are given back so many rows too early; too late, below 0."""

    def off(window: int | None, position: int, block_size: int) -> int:
        return blocks_behind(window, position + early, block_size)

    monkeypatch.setattr(table, "blocks_behind", off)


def never_give_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks behind a window are kept: wasteful, and right."""
    monkeypatch.setattr(table, "blocks_behind", lambda *_: 0)


def keep_blocks_of_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What of a draft did not stand keeps its blocks."""
    truncate = BlockTable.truncate

    def kept(self: BlockTable, length: int) -> None:
        truncate(self, length) if length == 0 else setattr(self, "filled", length)

    monkeypatch.setattr(BlockTable, "truncate", kept)


def release_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that end keep what they have."""
    monkeypatch.setattr(Engine, "_release_finished", lambda *_: None)


def reclaim_what_is_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool takes its reserve back although requests hold blocks of it."""

    def carelessly(self: BlockPool) -> bool:
        self._lent = False
        return True

    monkeypatch.setattr(BlockPool, "reclaim", carelessly)


# States


def keep_states_of_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot that stays after a draft is that of the row before the last that stands."""
    kept = StateTable.keep

    def keep(self: StateTable, position: int) -> bool:
        slots = self._slots
        if position - 1 in slots and position in slots:
            slots[position], slots[position - 1] = slots[position - 1], slots[position]
        return kept(self, position)

    monkeypatch.setattr(StateTable, "keep", keep)


def release_states_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """The slot of the states that the next row reads is free, and another request writes to it."""
    early: set[tuple[int, int]] = set()

    def keep(self: StateTable, position: int) -> bool:
        for at in [*self._slots]:
            if (id(self), at) not in early:
                self._pool.release(self._slots[at])
            early.discard((id(self), at))
            if at != position:
                del self._slots[at]
            else:
                early.add((id(self), at))
        return position in self._slots or position == 0

    monkeypatch.setattr(StateTable, "keep", keep)


def begin_with_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new request begins with the states in some slot and not with zeros."""
    monkeypatch.setattr(Span, "state", property(lambda span: span.states.get(span.start, 0)))


def publish_other_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """States are published at a position that is not theirs."""
    published = StateTable.publish

    def publish(self: StateTable, position: int, digest: bytes) -> None:
        published(self, next((at for at in self._slots if at != position), position), digest)

    monkeypatch.setattr(StateTable, "publish", publish)
