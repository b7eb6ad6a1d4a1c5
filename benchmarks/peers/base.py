"""What an engine has to do to be measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

CONTEXT = 2048  # positions that every engine has room for
PROMPT = 512  # rows that every engine may compute in one pass
CLIENT_PROMPT = 128  # tokens of the prompt of each of several clients


@dataclass(frozen=True)
class Setup:
    """path: a GGUF file. speculate: with the speculation that the engine brings along, which are these
    drafters if it is Outrider. clients: requests that come at once at most, each of `client_tokens` tokens,
    prompt and output together."""

    path: Path
    threads: int
    speculate: bool
    drafters: tuple[str, ...]
    clients: int = 1
    client_tokens: int = CONTEXT


class Peer(Protocol):
    """An engine with a model loaded. Building one raises whatever the engine raises."""

    @property
    def about(self) -> str:
        """Version, and what else tells one build of the engine from another."""

    def generate(self, prompts: Sequence[Sequence[int]], tokens: int) -> list[list[int]]:
        """Exactly `tokens` token ids for each prompt, greedily chosen, from an empty K/V cache.

        Several prompts are requests that come at once, and are as long as each other."""


Build = Callable[[Setup], Peer]
