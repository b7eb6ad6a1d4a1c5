"""What an engine has to do to be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CONTEXT = 2048  # positions that every engine has room for
PROMPT = 512  # tokens of the pass that is timed as prompt processing


@dataclass(frozen=True)
class Setup:
    """path: a GGUF file. speculate: with the speculation that the engine brings along, which are these
    drafters if it is Outrider."""

    path: Path
    threads: int
    speculate: bool
    drafters: tuple[str, ...]


class Peer(Protocol):
    """An engine with a model loaded. Building one raises whatever the engine raises."""

    @property
    def about(self) -> str:
        """Version, and what else tells one build of the engine from another."""

    def generate(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """Exactly `tokens` token ids, greedily chosen, from an empty K/V cache."""


Build = Callable[[Setup], Peer]
