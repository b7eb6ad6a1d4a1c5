"""Recordings on disk: safetensors files that are each written as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from outrider.errors import ModelError
from outrider.training.files import write_whole
from outrider.training.recorder import Recording


class Shards:
    """The shards `00000.safetensors` onwards of a folder.

    Each holds `tokens` int32 [n], `lengths` and `own` int32 [sequences] and `states` bfloat16 [n, width].
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def paths(self) -> list[Path]:
        """Those that are finished, in order."""
        return sorted(self.folder.glob("*.safetensors"))

    def missing(self) -> int:
        """The number of the first that is not there."""
        return next(number for number in count() if not self._path(number).is_file())

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.paths())

    @property
    def tokens(self) -> int:
        """The tokens of all sequences together."""
        return sum(_opened(path).get_slice("tokens").get_shape()[0] for path in self.paths())

    def write(self, number: int, recordings: Sequence[Recording]) -> None:
        """Raises OSError, with no shard written, if the disk is full."""
        path = self._path(number)
        tensors = {
            "tokens": torch.tensor([token for r in recordings for token in r.tokens], dtype=torch.int32),
            "lengths": torch.tensor([len(r.tokens) for r in recordings], dtype=torch.int32),
            "own": torch.tensor([r.own for r in recordings], dtype=torch.int32),
            "states": torch.cat([r.states for r in recordings]),
        }
        write_whole(path, lambda partial: save_file(tensors, partial))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:05d}.safetensors"

    def recordings(self) -> Iterator[Recording]:
        """Every sequence. States stay on disk until they are read."""
        for path in self.paths():
            yield from _recordings(path)

    def shard(self, number: int) -> Iterator[Recording]:
        """The sequences of a shard; none of one that is not there."""
        path = self._path(number)
        return _recordings(path) if path.is_file() else iter(())


def _recordings(path: Path) -> Iterator[Recording]:
    with _opened(path) as file:
        tokens = file.get_tensor("tokens").tolist()
        states = file.get_tensor("states")  # mapped: read when it is used
        first = 0
        for length, own in zip(
            file.get_tensor("lengths").tolist(), file.get_tensor("own").tolist(), strict=True
        ):
            yield Recording(tuple(tokens[first : first + length]), own, states[first : first + length])
            first += length


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} is truncated or corrupt: {error}; delete it, to have it made anew"
        ) from error
