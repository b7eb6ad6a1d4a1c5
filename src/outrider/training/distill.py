"""From a target to a draft that fits it: data, training, evaluation, and a folder to load."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Protocol

import torch

from outrider.engine.backend import choose_device
from outrider.errors import ModelError
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.training.contest import decoding_speeds
from outrider.training.data import Listener, make_data
from outrider.training.kinds import HeadKind, Kind, StudentKind
from outrider.training.recorder import Recording
from outrider.training.score import Score
from outrider.training.settings import USUAL, DistillConfig, Pace, claim
from outrider.training.shards import Shards
from outrider.training.trainer import Recipe, Trainer

HELD_OUT = 64  # sequences at most to evaluate on, and a twentieth of all
HEAD_FILES = ("config.json", "model.safetensors")


class Progress(Listener, Protocol):
    """Who is told how far it is."""

    def trained(self, steps: int, total: int, loss: float) -> None: ...

    def scored(self, score: Score) -> None: ...

    def measured(self, shape: str, tokens_per_s: float) -> None: ...


@dataclass(frozen=True)
class Texts:
    """Recordings to train on, and others to evaluate on."""

    taught: Sequence[Recording]
    held_out: Sequence[Recording]

    @classmethod
    def of(cls, recordings: Sequence[Recording]) -> Texts:
        count = min(HELD_OUT, max(1, len(recordings) // 20))
        return cls(recordings[count:], recordings[:count])


def distill(config: DistillConfig, progress: Progress, pace: Pace = USUAL) -> Score:
    """Make a draft in `config.out`; its score on sequences that it was not trained on.

    What an earlier run with the same settings left there is gone on from: data shard by shard, training from
    its last checkpoint. Raises ConfigError for settings that differ from those, ModelError for a target that
    cannot be used, and OSError for a full disk, when all that was saved before stands.
    """
    kinds = _kinds(config, open_checkpoint(config.target))
    claim(config)
    work = config.out / "work"
    shards = Shards(work / "data")
    make_data(config, kinds[0], shards, progress, pace)
    texts = Texts.of(list(shards.recordings()))
    if not texts.taught:
        raise ModelError(f"{config.tokens} tokens are too few to train on; give more")
    if len(kinds) == 1:
        return _train(config, kinds[0], texts, work, config.out, progress, pace)
    drafts = {kind.shape: work / kind.shape for kind in kinds}
    scores = {
        kind.shape: _train(config, kind, texts, drafts[kind.shape], drafts[kind.shape], progress, pace)
        for kind in kinds
    }
    prompts = [recording.tokens[: recording.own] for recording in texts.held_out]
    speeds = decoding_speeds(config.target, drafts, prompts, device=config.device)
    for shape, speed in speeds.items():
        progress.measured(shape, speed)
    best = max(speeds, key=speeds.__getitem__)
    for name in HEAD_FILES:
        shutil.copyfile(drafts[best] / name, config.out / name)
    return scores[best]


def _kinds(config: DistillConfig, checkpoint: Checkpoint) -> list[Kind]:
    """The drafts to make, at least one."""
    if config.kind == "student":
        return [StudentKind(checkpoint)]
    return [
        HeadKind.of(
            checkpoint,
            config.target,
            start=config.start,
            draft_vocab_size=vocab,
            layers=layers,
            state_layers=config.state_layers,
            quantized=config.quantized,
        )
        for layers, vocab in product(config.layers or (None,), config.draft_vocab_size or (None,))
    ]


def _train(
    config: DistillConfig,
    kind: Kind,
    texts: Texts,
    work: Path,
    out: Path,
    progress: Progress,
    pace: Pace,
) -> Score:
    """work: the folder of its checkpoint; out: that of the draft."""
    torch.manual_seed(config.seed)
    device = torch.device(choose_device(config.device))
    recipe = Recipe(unrolled=config.unrolled, rate=config.learning_rate, seed=config.seed)
    trainer = Trainer(kind.lesson(texts.taught, device), texts.taught, recipe, device=device)
    work.mkdir(exist_ok=True)
    path = work / "checkpoint.pt"
    if path.is_file():
        trainer.restore(path)
    evaluated = time.monotonic()
    save_at = evaluated + pace.save
    for loss in trainer.steps():
        progress.trained(trainer.done, trainer.total, loss)
        if (now := time.monotonic()) > save_at:
            trainer.save(path)
            save_at = time.monotonic() + max(pace.save, (time.monotonic() - now) / pace.saving)
        if time.monotonic() - evaluated > pace.evaluate:
            progress.scored(trainer.evaluate(texts.held_out))
            evaluated = time.monotonic()
    trainer.save(path)
    trainer.lesson.save(out)
    score = trainer.evaluate(texts.held_out)
    progress.scored(score)
    return score
