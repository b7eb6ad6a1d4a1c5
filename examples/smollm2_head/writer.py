"""Conversations that the target writes, thousands at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from examples.smollm2_head.prompts import Texts, follow_up, user_turn
from examples.smollm2_head.target import Attend, Target
from outrider.models.tokenizer import Tokenizer
from outrider.training.conversations import TEMPERATURES, Layout

ROWS = 49_152  # of prompts that are read at a time
STEPS = 24  # between two looks at which sequences have ended
REMEMBERED = 3000  # answers that later prompts may be about
AGAIN = "\n<|im_start|>user\n"  # between the end of SmolLM2's answer and the user's next turn
NOTHING = -1e30  # a score that nothing is chosen with


@dataclass(frozen=True)
class Conversation:
    """tokens: all of it; own: where the target's first answer begins."""

    tokens: NDArray[np.uint16]
    own: int


@dataclass(frozen=True)
class Job:
    """A sequence to go on from. own: where the first answer of it begins, once that has begun; answers:
    whether the target is to answer now, else it writes the rest of a user's turn."""

    tokens: list[int]
    answers: bool
    own: int | None = None


@dataclass(frozen=True)
class Lengths:
    """Tokens of an answer and of a user's turn, at most."""

    answer: int = 256
    user: int = 160


@dataclass
class Lanes:
    """What each slot is at: its last token, that token's position, where it ends; how it samples."""

    token: Tensor
    position: Tensor
    last: Tensor
    inverse: Tensor  # of the temperature
    noise: Tensor  # 0 where the likeliest token is taken, else 1
    floor: Tensor  # how far below the likeliest a score may lie
    ended: Tensor
    history: Tensor  # [slots, most]

    @classmethod
    def of(cls, slots: int, most: int, device: torch.device) -> Lanes:
        def whole(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        def real(value: float) -> Tensor:
            return torch.full((slots,), value, device=device)

        ended = torch.ones(slots, dtype=torch.bool, device=device)
        return cls(
            whole(slots),
            whole(slots),
            whole(slots),
            real(1.0),
            real(0.0),
            real(NOTHING),
            ended,
            whole(slots, most),
        )


@dataclass
class Writer:
    """Fills `slots` sequences of `target.most` positions at most, each with the next job once it has ended.

    follow: the share of answers after which the user goes on. end: tokens that end a turn.
    """

    target: Target
    tokenizer: Tokenizer
    layout: Layout
    texts: Texts
    attend: Attend
    slots: int
    end: Sequence[int]
    lengths: Lengths = Lengths()
    follow: float = 0.12
    seed: int = 0
    _jobs: deque[Job] = field(default_factory=deque)
    _answers: deque[str] = field(default_factory=lambda: deque(maxlen=REMEMBERED))

    def __post_init__(self) -> None:
        device = self.target.table.device
        self._draw = Random(self.seed)
        self._cache = self.target.cache(self.slots)
        self._lanes = Lanes.of(self.slots, self.target.most, device)
        self._running: dict[int, Job] = {}
        self._rows = torch.arange(self.slots, device=device)
        self._between = self._encode(self.layout.between)
        self._replay: Callable[[], None] | None = None

    @torch.no_grad()
    def conversations(self) -> Iterator[list[Conversation]]:
        """Those that have ended since the last time, without end."""
        self._fill(list(range(self.slots)))
        go_on = self._captured() if self._rows.is_cuda else self._go_on
        while True:
            for _ in range(STEPS):
                go_on()
            ended = self._lanes.ended.nonzero()[:, 0].tolist()
            lengths = (self._lanes.position[ended] + 1).tolist()
            histories = self._lanes.history[ended].cpu()
            found = [
                self._ended(self._running[slot], history[:length].tolist())
                for slot, length, history in zip(ended, lengths, histories, strict=True)
            ]
            self._fill(ended)
            yield [conversation for conversation in found if conversation is not None]

    def _captured(self) -> Callable[[], None]:
        """A step as one CUDA graph."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self._go_on()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._go_on()
        return graph.replay

    def _go_on(self) -> None:
        """One more token of every sequence that has not ended, by noise as in Gumbel (1954)."""
        at = self._lanes
        logits = self.target.step(at.token, at.position, self._cache, self.attend).float()
        scores = logits * at.inverse[:, None]
        scores = torch.where(scores < scores.amax(1, keepdim=True) + at.floor[:, None], NOTHING, scores)
        uniform = torch.empty_like(scores).exponential_().clamp_min_(1e-20)
        token = (scores - at.noise[:, None] * uniform.log_()).argmax(1)
        token = torch.where(at.ended, at.token, token)
        position = torch.where(at.ended, at.position, at.position + 1)
        at.history[self._rows, position] = token
        at.position.copy_(position)
        at.token.copy_(token)
        for end in self.end:
            at.ended |= token == end
        at.ended |= position >= at.last

    def _fill(self, slots: list[int]) -> None:
        """Give each of the slots a job, prompts of like lengths together."""
        jobs = sorted((self._next() for _ in slots), key=lambda job: len(job.tokens))
        while jobs:
            count = 1
            while count < len(jobs) and len(jobs[count].tokens) * (count + 1) <= ROWS:
                count += 1
            self._begin(slots[:count], jobs[:count])
            slots, jobs = slots[count:], jobs[count:]

    def _next(self) -> Job:
        while True:
            job = self._jobs.popleft() if self._jobs else self._new()
            if len(job.tokens) + STEPS <= self.target.most:
                return job

    def _new(self) -> Job:
        turn = user_turn(self._draw, self.texts, self._answers)
        tokens = self._encode(self.layout.opening + turn.text)
        return Job(tokens, answers=False) if turn.begun else Job(tokens + self._between, answers=True)

    def _begin(self, slots: list[int], jobs: list[Job]) -> None:
        device, at = self._rows.device, self._lanes
        lengths = [len(job.tokens) for job in jobs]
        padded = np.zeros((len(jobs), max(lengths)), np.int64)
        for row, job in zip(padded, jobs, strict=True):
            row[: len(job.tokens)] = job.tokens
        tokens = torch.from_numpy(padded).to(device)
        where = torch.tensor(slots, device=device)
        self.target.whole(tokens, cache=self._cache, slots=where)
        answers = np.array([job.answers for job in jobs])
        temperatures = np.array([self._draw.choice(TEMPERATURES) if yes else 0.9 for yes in answers])
        limits = np.where(answers, self.lengths.answer, self.lengths.user)

        def put(values: NDArray[np.generic]) -> Tensor:
            return torch.from_numpy(values).to(device)

        at.history[where, : padded.shape[1]] = tokens
        at.position[where] = put(np.array(lengths) - 1)
        at.token[where] = put(padded[np.arange(len(jobs)), np.array(lengths) - 1])
        at.last[where] = put(np.minimum(np.array(lengths) + limits, self.target.most - 1) - 1)
        hot = temperatures > 0
        at.inverse[where] = put(1 / np.where(hot, temperatures, 1)).float()
        at.noise[where] = put(hot).float()
        at.floor[where] = put(np.where(answers, NOTHING, -3.5)).float()
        at.ended[where] = False
        self._running.update(zip(slots, jobs, strict=True))

    def _ended(self, job: Job, tokens: list[int]) -> Conversation | None:
        """The conversation, if this was its last turn."""
        said = tokens[len(job.tokens) :]
        if not job.answers:
            if said and said[-1] in self.end:
                tokens = tokens[:-1]
            self._jobs.append(Job(tokens + self._between, answers=True, own=job.own))
            return None
        own = len(job.tokens) if job.own is None else job.own
        if len(said) > 60 and self._draw.random() < 0.1:
            self._answers.append(self.tokenizer.decode([token for token in said if token not in self.end]))
        room = len(tokens) < self.target.most - self.lengths.answer
        if room and said[-1] in self.end and self._draw.random() < self.follow:
            opening = self._encode(AGAIN + follow_up(self._draw))
            self._jobs.append(Job(tokens + opening, answers=False, own=own))
            return None
        return Conversation(np.array(tokens, np.uint16), own)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))
