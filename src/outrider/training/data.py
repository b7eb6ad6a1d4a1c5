"""Recordings of the target: its conversations with its states, made by an engine at its full batch."""

from __future__ import annotations

import random
from typing import Protocol

from outrider.training.conversations import answer, prompts_for
from outrider.training.kinds import Kind
from outrider.training.settings import DistillConfig, Pace
from outrider.training.shards import Shards
from outrider.training.teller import OwnTeller, Teller


class Listener(Protocol):
    """Who is told how far it is."""

    def data(self, tokens: int, total: int) -> None: ...


def make_data(config: DistillConfig, kind: Kind, shards: Shards, listener: Listener, pace: Pace) -> None:
    """Add shards until there is enough. On our engine a shard is a function of the settings and the one
    before it, so that it is the same whether an earlier run was interrupted or not."""

    def complete() -> bool:
        """Whether there is enough, and no shard is missing in between."""
        tokens = shards.tokens
        listener.data(tokens, config.tokens)
        enough = tokens >= config.tokens or shards.bytes >= config.data_limit
        return enough and shards.missing() == len(shards.paths())

    if complete():
        return
    teller = _teller(config, kind, shards, pace)
    prompts = prompts_for(teller, config.prompts, pace.turn)
    while not complete():
        number = shards.missing()
        draw = random.Random(f"{config.seed} {number}")
        said = [teller.tokenizer.decode(r.tokens[r.own :], True) for r in shards.shard(number - 1)]
        texts = prompts.texts(draw, pace.sequences, said)
        teller.take()  # what was told to get the prompts
        answer(teller, texts, draw, pace.turn)
        shards.write(number, teller.take())
    teller.close()


def _teller(config: DistillConfig, kind: Kind, shards: Shards, pace: Pace) -> Teller:
    if config.engine == "outrider":
        return OwnTeller(config, kind.state_layers, pace)
    from outrider.training.vllm_teller import VllmTeller

    return VllmTeller(config, kind.state_layers, pace, shards.folder.parent / "told")
