"""The training process: what it is given, and what it does in a loop."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from outrider.adapting.messages import GoBack, Passage, Ready, Refusal, Setup
from outrider.adapting.rounds import Rounds
from outrider.errors import OutriderError
from outrider.models.checkpoint import open_checkpoint
from outrider.training.head_lesson import HeadLesson
from outrider.training.kinds import HeadKind
from outrider.training.teacher import Teacher


def main(descriptor: int) -> None:
    """Train until the server closes its end of the pipe, of which this is the other's descriptor."""
    step_back()
    channel: Any = Connection(descriptor)
    with suppress(EOFError, OSError):
        setup: Setup = channel.recv()
        torch.set_num_threads(setup.threads)
        try:
            rounds = Rounds(lesson_of(setup), setup.config)
        except OutriderError as error:
            channel.send(Refusal(str(error)))
            return
        channel.send(Ready())
        work(rounds, channel)


def step_back() -> None:
    """Take hardly any time that other processes could use, and be the one to end where memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(19)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def work(rounds: Rounds, channel: Any) -> None:
    """Rounds, whenever there is enough to learn from. Raises EOFError once the server is gone."""

    def receive() -> None:
        message = channel.recv()
        match message:
            case Passage():
                rounds.add(message)
            case GoBack():
                rounds.go_back(message)

    def receive_all() -> None:
        while channel.poll():
            receive()

    while True:
        receive()
        receive_all()
        if rounds.due:
            channel.send(rounds.train(receive_all))


def lesson_of(setup: Setup) -> HeadLesson:
    """The head as it is trained. Raises ModelError for one that training does not know."""
    target = open_checkpoint(setup.target, revision=setup.revision)
    kind = HeadKind.of(
        target,
        setup.target,
        start=str(setup.head),
        draft_vocab_size=None,
        layers=None,
        state_layers=(),
        quantized=False,
    )
    assert kind.start is not None
    teacher = replace(Teacher.of(target), last_layers=())  # the head has begun long ago
    return HeadLesson(
        kind.config,
        teacher,
        torch.from_numpy(kind.start.targets()),
        start=kind.start,
        quantized=kind.start.quantized,
        device=torch.device("cpu"),
    )
