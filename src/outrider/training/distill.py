"""From a target to a draft that fits it: data, training, evaluation, and a folder to load."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, Protocol

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from outrider.config import Bytes, resolve
from outrider.engine.backend import choose_device
from outrider.engine.build import build_engine
from outrider.errors import ConfigError, ModelError
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.training.conversations import answer, prompts_for
from outrider.training.files import write_whole
from outrider.training.kinds import HeadKind, Kind, StudentKind
from outrider.training.recorder import Recording, StateRecorder
from outrider.training.score import Score
from outrider.training.shards import Shards
from outrider.training.trainer import Recipe, Trainer
from outrider.validation import Strict

TOGETHER = 96  # that are generated at a time
HELD_OUT = 64  # sequences at most to evaluate on, and a twentieth of all


@dataclass(frozen=True)
class Pace:
    """How much is done between two times that something is saved or told.

    sequences: of a shard; turn: tokens of a user's turn and of an answer, at most; save, evaluate: seconds of
    training.
    """

    sequences: int = 256
    turn: int = 256
    save: float = 60.0
    evaluate: float = 300.0


class DistillConfig(Strict):
    """What to make, and from how much."""

    target: str
    out: Path
    kind: Literal["head", "student"] = "head"
    prompts: Path | None = None
    """Prompts for the target to answer; None: it writes them itself."""
    tokens: PositiveInt = 1_000_000
    """Tokens of training data, prompts included."""
    data_limit: Bytes = 8 * 2**30
    """Bytes of the data on disk: what comes first, this or `tokens`, ends the making of data."""
    start: str | None = None
    """A head to go on from, its vocabulary included; None: begin at the target's last layer."""
    draft_vocab_size: PositiveInt | None = None
    """Tokens that a head can say, the target's most frequent: as many as `start`'s, or 8192."""
    layers: PositiveInt | None = None
    """Layers of a head; None: as many as `start` has, or one."""
    unrolled: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (1, 1, 2, 3)
    """Steps unrolled in each pass over the data; a student's passes are as many."""
    learning_rate: PositiveFloat = 8e-4
    quantized: bool = False
    """Save a head's matrices in 4 bits, which other engines do not read."""
    seed: int = 0
    device: str = "auto"

    @model_validator(mode="after")
    def _a_start_is_a_head(self) -> DistillConfig:
        if self.start is not None and self.kind != "head":
            raise ValueError(f"start = {self.start!r} is for kind = 'head', and kind is {self.kind!r}")
        return self


class Progress(Protocol):
    """Who is told how far it is."""

    def data(self, tokens: int, total: int) -> None: ...

    def trained(self, steps: int, total: int, loss: float) -> None: ...

    def scored(self, score: Score) -> None: ...


def distill(config: DistillConfig, progress: Progress, pace: Pace = Pace()) -> Score:
    """Make a draft in `config.out`; its score on sequences that it was not trained on.

    What an earlier run with the same settings left there is gone on from: data shard by shard, training from
    its last checkpoint. Raises ConfigError for settings that differ from those, ModelError for a target that
    cannot be used, and OSError for a full disk, when all that was saved before stands.
    """
    kind = _kind(config, open_checkpoint(config.target))
    work = config.out / "work"
    work.mkdir(parents=True, exist_ok=True)
    _claim(work / "settings.json", config)
    shards = Shards(work / "data")
    _make_data(config, kind, shards, progress, pace)
    recordings = list(shards.recordings())
    held_out = min(HELD_OUT, max(1, len(recordings) // 20))
    return _train(config, kind, recordings[held_out:], recordings[:held_out], progress, pace)


def _claim(path: Path, config: DistillConfig) -> None:
    """See to it that all that is made in a folder is made by one set of settings."""
    settings = json.loads(config.model_dump_json(exclude={"out", "device"}))
    if not path.is_file():
        text = json.dumps(settings, indent=2)
        write_whole(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))
        return
    for name, value in json.loads(path.read_text(encoding="utf-8")).items():
        if settings[name] != value:
            raise ConfigError(
                f"{str(config.out)!r} was begun with {name} = {value!r}, and now it is {settings[name]!r}; "
                "give the same to go on, or another --out to begin anew"
            )


def _kind(config: DistillConfig, checkpoint: Checkpoint) -> Kind:
    if config.kind == "student":
        return StudentKind(checkpoint)
    return HeadKind.of(
        checkpoint,
        config.target,
        start=config.start,
        draft_vocab_size=config.draft_vocab_size,
        layers=config.layers,
        quantized=config.quantized,
    )


def _make_data(config: DistillConfig, kind: Kind, shards: Shards, progress: Progress, pace: Pace) -> None:
    tokens, number = shards.tokens, len(shards.paths())
    progress.data(tokens, config.tokens)
    if tokens >= config.tokens or shards.bytes >= config.data_limit:
        return
    recorder = StateRecorder(kind.state_layers)
    engine = build_engine(
        resolve(
            config.target,
            device=config.device,
            max_num_seqs=TOGETHER,
            kv_cache_memory=2 * 2**30,
            enable_prefix_caching=False,  # states have to be computed at every position
            seed=config.seed,
        ),
        observer=recorder,
    )
    prompts = prompts_for(engine, config.prompts, pace.turn)
    with nullcontext() if engine.facts.kernels is None else _pytorch_asleep():
        while tokens < config.tokens and shards.bytes < config.data_limit:
            draw = random.Random(f"{config.seed} {number}")
            recordings: list[Recording] = []
            answers: list[str] = []
            for count in (pace.sequences - pace.sequences // 4, pace.sequences // 4):
                texts = prompts.texts(draw, count, answers)
                recorder.take()  # of what was generated to get the prompts
                answers = answer(engine, texts, draw, pace.turn)
                recordings += recorder.take()
            shards.write(number, recordings)
            tokens += sum(len(recording.tokens) for recording in recordings)
            number += 1
            progress.data(tokens, config.tokens)


@contextmanager
def _pytorch_asleep() -> Iterator[None]:
    """PyTorch's own threads do nothing. It would share the rounding of recorded states out over them, and
    they wait for the next ones spinning: on two cores that slows the native kernels down by half."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(
    config: DistillConfig,
    kind: Kind,
    recordings: Sequence[Recording],
    held_out: Sequence[Recording],
    progress: Progress,
    pace: Pace,
) -> Score:
    if not recordings:
        raise ModelError(f"{config.tokens} tokens are too few to train on; give more")
    torch.manual_seed(config.seed)
    device = torch.device(choose_device(config.device))
    recipe = Recipe(unrolled=config.unrolled, rate=config.learning_rate, seed=config.seed)
    trainer = Trainer(kind.lesson(recordings, device), recordings, recipe, device=device)
    path = config.out / "work" / "checkpoint.pt"
    if path.is_file():
        trainer.restore(path)
    saved = evaluated = time.monotonic()
    for loss in trainer.steps():
        progress.trained(trainer.done, trainer.total, loss)
        now = time.monotonic()
        if now - saved > pace.save:
            trainer.save(path)
            saved = now
        if now - evaluated > pace.evaluate:
            progress.scored(trainer.evaluate(held_out))
            evaluated = time.monotonic()
    trainer.save(path)
    trainer.lesson.save(config.out)
    score = trainer.evaluate(held_out)
    progress.scored(score)
    return score
