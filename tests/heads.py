"""A small head that has learnt its tiny target's answers well enough to be right now and then."""

from __future__ import annotations

from pathlib import Path

import torch

from outrider import SamplingParams
from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_config import HeadConfig
from outrider.training.head_lesson import HeadLesson
from outrider.training.recorder import Recording, StateRecorder
from outrider.training.teacher import Teacher, frequent_tokens
from outrider.training.trainer import Recipe, Trainer
from tests.engine.helpers import PROMPTS


def record(target: str, *, seeds: int, max_tokens: int = 48) -> list[Recording]:
    """The target's answers to the prompts of the tests, at several temperatures, with its states."""
    config = open_checkpoint(target).config
    head = HeadConfig.for_target(config, draft_vocab_size=200)
    assert head.state_layers is not None
    recorder = StateRecorder(sorted({*head.state_layers, config.num_layers}))
    engine = build_engine(resolve(target, device="cpu", enable_prefix_caching=False), observer=recorder)
    for seed in range(seeds):
        for prompt in PROMPTS:
            engine.add(prompt, SamplingParams(temperature=0.5 * (seed % 3), seed=seed, max_tokens=max_tokens))
    while engine.unfinished:
        engine.step()
    return recorder.take()


def trainer(target: str, recordings: list[Recording], recipe: Recipe) -> Trainer:
    torch.manual_seed(recipe.seed)
    checkpoint = open_checkpoint(target)
    config = HeadConfig.for_target(checkpoint.config, draft_vocab_size=200)
    tokens = frequent_tokens(recordings, vocab=checkpoint.config.vocab_size, count=config.draft_vocab_size)
    device = torch.device("cpu")
    lesson = HeadLesson(config, Teacher.of(checkpoint), tokens, device=device)
    return Trainer(lesson, recordings, recipe, device=device)


def write_head(path: Path, target: str) -> None:
    """Train a head for a few seconds and save it."""
    made = trainer(
        target, record(target, seeds=4), Recipe(unrolled=(1,) * 10 + (3,) * 20, rows=1024, rate=2e-2)
    )
    for _ in made.steps():
        pass
    made.lesson.save(path)
