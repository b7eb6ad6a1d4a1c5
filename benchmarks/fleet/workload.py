"""What a fleet is asked: conversations that come as a Poisson stream, each of several turns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(eq=False, slots=True)
class Request:
    """A turn of a conversation, on its way. prompt, answer: tokens; times are seconds.

    unread: tokens of the prompt that are still to be computed; written: tokens of the answer that are there.
    """

    conversation: int
    turn: int
    prompt: int
    answer: int
    arrived: float
    unread: int = 0
    cached: int = 0
    written: int = 0
    first: float = field(default=float("nan"))
    ended: float = field(default=float("nan"))

    @property
    def context(self) -> int:
        """Positions that are computed."""
        return self.prompt - self.unread + self.written


@dataclass(frozen=True)
class Workload:
    """turns: of a conversation; prompt: tokens of its first turn, and question: of each other one, after all
    that was said; answer: tokens on average; spread: whether answers have geometric lengths, or all the same;
    think: seconds on average from an answer to the next turn."""

    turns: int = 6
    prompt: int = 120
    question: int = 40
    answer: int = 120
    spread: bool = True
    think: float = 3.0

    @property
    def mean_prompt(self) -> float:
        """The tokens of a prompt, as the mean over all turns."""
        return self.prompt + (self.turns - 1) / 2 * (self.question + self.answer)

    def first(self, conversation: int, now: float, random: np.random.Generator) -> Request:
        return Request(conversation, 0, self.prompt, self._length(random), now)

    def underway(self, conversation: int, random: np.random.Generator) -> Request:
        """The next turn of a conversation that began before the time 0."""
        turn = int(random.integers(1, self.turns))
        prompt = self.prompt + turn * (self.question + self.answer)
        return Request(conversation, turn, prompt, self._length(random), random.exponential(self.think))

    def next(self, last: Request, random: np.random.Generator) -> Request | None:
        """The turn after one that has ended, or None at the conversation's end."""
        if last.turn + 1 == self.turns:
            return None
        now = last.ended + random.exponential(self.think)
        prompt = last.prompt + last.answer + self.question
        return Request(last.conversation, last.turn + 1, prompt, self._length(random), now)

    def _length(self, random: np.random.Generator) -> int:
        return int(random.geometric(1 / self.answer)) if self.spread else self.answer
