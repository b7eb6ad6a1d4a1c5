"""Recordings of the target: its conversations with its states, made by the engine at its full batch."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Protocol

import torch

from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.training.conversations import answer, prompts_for
from outrider.training.kinds import Kind
from outrider.training.recorder import StateRecorder
from outrider.training.settings import DistillConfig, Pace
from outrider.training.shards import Shards


class Listener(Protocol):
    """Who is told how far it is."""

    def data(self, tokens: int, total: int) -> None: ...


def make_data(config: DistillConfig, kind: Kind, shards: Shards, listener: Listener, pace: Pace) -> None:
    """Add shards until there is enough. A shard is a function of the settings and the one before it, so that
    it is the same whether an earlier run was interrupted or not."""

    def complete() -> bool:
        """Whether there is enough, and no shard is missing in between."""
        tokens = shards.tokens
        listener.data(tokens, config.tokens)
        enough = tokens >= config.tokens or shards.bytes >= config.data_limit
        return enough and shards.missing() == len(shards.paths())

    if complete():
        return
    recorder = StateRecorder(kind.state_layers)
    engine = build_engine(
        resolve(
            config.target,
            device=config.device,
            max_num_seqs=pace.sequences,
            kv_cache_memory=2 * 2**30,
            enable_prefix_caching=False,  # states have to be computed at every position
            seed=config.seed,
        ),
        observer=recorder,
    )
    tokenizer = engine.tokenizer
    prompts = prompts_for(engine, config.prompts, pace.turn)
    with nullcontext() if engine.facts.kernels is None else _pytorch_asleep():
        while not complete():
            number = shards.missing()
            draw = random.Random(f"{config.seed} {number}")
            said = [tokenizer.decode(r.tokens[r.own :], True) for r in shards.shard(number - 1)]
            texts = prompts.texts(draw, pace.sequences, said)
            recorder.take()  # of what was generated to get the prompts
            answer(engine, texts, draw, pace.turn)
            shards.write(number, recorder.take())


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
