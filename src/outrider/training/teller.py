"""What generates a target's text for training, and writes down its states meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch

from outrider.config import resolve
from outrider.engine.build import build_engine
from outrider.models.tokenizer import Tokenizer
from outrider.params import SamplingParams
from outrider.training.recorder import Recording, StateRecorder
from outrider.training.settings import DistillConfig, Pace


class Teller(Protocol):
    """The target, telling. Prompts are laid out already."""

    @property
    def tokenizer(self) -> Tokenizer: ...

    def tell(self, texts: Sequence[str], params: Sequence[SamplingParams]) -> list[str]:
        """The texts that follow."""

    def take(self) -> list[Recording]:
        """What it has told since it was last asked, with its states."""

    def close(self) -> None:
        """Give back what the target takes."""


class OwnTeller:
    """On our engine. state_layers: the layers after which states are recorded."""

    def __init__(self, config: DistillConfig, state_layers: Sequence[int], pace: Pace) -> None:
        self._recorder = StateRecorder(state_layers)
        self._engine = build_engine(
            resolve(
                config.target,
                device=config.device,
                max_num_seqs=pace.sequences,
                kv_cache_memory=2 * 2**30,
                enable_prefix_caching=False,  # states have to be computed at every position
                seed=config.seed,
            ),
            observer=self._recorder,
        )

    @property
    def tokenizer(self) -> Tokenizer:
        return self._engine.tokenizer

    def tell(self, texts: Sequence[str], params: Sequence[SamplingParams]) -> list[str]:
        engine = self._engine
        ids = [
            engine.add(encoded(engine.tokenizer, text), each)
            for text, each in zip(texts, params, strict=True)
        ]
        with self._undisturbed():
            while engine.unfinished:
                engine.step()
        return [engine.take(i).outputs[0].text for i in ids]

    def take(self) -> list[Recording]:
        return self._recorder.take()

    def close(self) -> None:
        """Its engine goes with it."""

    def _undisturbed(self) -> AbstractContextManager[None]:
        return nullcontext() if self._engine.facts.kernels is None else _pytorch_asleep()


def encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens of a prompt that is laid out."""
    return tokenizer.encode(text, add_special_tokens=False)


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
