"""What may draft for a target, and the rules by which it does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

from outrider.config import EngineConfig
from outrider.drafting.vocabulary import OtherVocabulary, Vocabulary, check_same_vocabulary
from outrider.errors import ModelError
from outrider.models.checkpoint import Checkpoint
from outrider.models.gguf_split import part_names
from outrider.models.spelling import unspeakable
from outrider.speculative_config import DrafterConfig

SMALLER = 2
"""A draft model reads so many times fewer bytes for a token than its target: with more it cannot pay."""


@dataclass(frozen=True)
class Sought:
    """A target for which drafts are sought. path: its folder or file; open: the checkpoint of a name, of
    which nothing but headers is read."""

    config: EngineConfig
    checkpoint: Checkpoint
    path: Path
    open: Callable[[str], Checkpoint]

    @property
    def chooses(self) -> bool:
        """Whether it is chosen for each request how much to draft, and so with which drafter."""
        speculative = self.config.speculative
        return speculative is not None and speculative.num_speculative_tokens == "auto"

    @cached_property
    def size(self) -> int:
        """Bytes of its weights on the disk."""
        return weights_size(self.path)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Its tokens by id."""
        checkpoint = self.checkpoint
        return Vocabulary.of(self.config.model, checkpoint.tokenizer(), checkpoint.config.vocab_size)


@dataclass(frozen=True)
class Candidate:
    """A drafter that was found on this disk.

    drafter: as the configuration has it; label: as people know it, a path or a repository of the hub; where:
    it was found, in words; size: bytes of its weights on the disk; measured: what it gives, and under which
    conditions, None where nobody is known to have measured it. size is None where it is part of the target.
    """

    drafter: DrafterConfig
    label: str
    where: str
    size: int | None
    measured: str | None = None

    kind: ClassVar[str]
    """What it is, in words."""
    rank: ClassVar[int]
    """Those of a lower one are tried first: they cost less."""
    speculative: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """Options of speculation that it needs."""

    def goes_behind(self, taken: Sequence[Candidate], sought: Sought) -> bool:
        """Whether there is a place for it in a chain of lookup and these."""
        return not taken

    def check(self, sought: Sought, read: float) -> None:
        """Raise ModelError where it does not suit the target, though it was planned with it without an error.

        read: for a token, as a share of the bytes that the target reads.
        """

    def instead(self, error: Exception) -> Candidate | None:
        """What may be tried in its place where this is wrong with it, and nothing else suits."""
        return None


@dataclass(frozen=True)
class OwnCandidate(Candidate):
    """A layer for multi-token prediction that the target's checkpoint brings."""

    kind: ClassVar[str] = "MTP layer"
    rank: ClassVar[int] = 0


@dataclass(frozen=True)
class AssistantCandidate(Candidate):
    """What attends to the target's K and V. Whether it was made for the target is seen by planning it."""

    kind: ClassVar[str] = "assistant"
    rank: ClassVar[int] = 0


@dataclass(frozen=True)
class HeadCandidate(Candidate):
    """An EAGLE-3 head. Whether it was made for the target is seen by planning it."""

    kind: ClassVar[str] = "EAGLE-3 head"
    rank: ClassVar[int] = 1


@dataclass(frozen=True)
class ModelCandidate(Candidate):
    """A whole model."""

    kind: ClassVar[str] = "draft model"
    rank: ClassVar[int] = 2

    def goes_behind(self, taken: Sequence[Candidate], sought: Sought) -> bool:
        """Behind a head too, which costs less and is right less often, where the one that pays more is chosen
        for each request."""
        return not taken or (sought.chooses and not any(isinstance(each, ModelCandidate) for each in taken))

    def check(self, sought: Sought, read: float) -> None:
        """Raises OtherVocabulary where that is all that is wrong with it."""
        if read * SMALLER > 1:
            raise ModelError(
                f"it reads {read:.0%} of its target's bytes for a token; a draft that can pay reads "
                f"{1 / SMALLER:.0%} at most"
            )
        draft = self._opened(sought)
        own, target = draft.config.tree, sought.checkpoint.config.tree
        if (own.hidden_size, len(own.blocks)) == (target.hidden_size, len(target.blocks)):
            raise ModelError("it is of its target's size, at other bits; give 'self:int4' for that")
        check_same_vocabulary(
            sought.vocabulary, Vocabulary.of(self.label, draft.tokenizer(), draft.config.vocab_size)
        )

    def instead(self, error: Exception) -> Candidate | None:
        """The same model, which drafts text."""
        return TextCandidate(**vars(self)) if isinstance(error, OtherVocabulary) else None

    def _opened(self, sought: Sought) -> Checkpoint:
        assert self.drafter.model is not None  # as of every drafter that is loaded
        return sought.open(self.drafter.model)


@dataclass(frozen=True)
class TextCandidate(ModelCandidate):
    """A model of another vocabulary, which drafts text: a last resort, since it is right less often."""

    kind: ClassVar[str] = "draft model of another vocabulary"
    rank: ClassVar[int] = 3
    speculative: ClassVar[Mapping[str, Any]] = MappingProxyType({"draft_vocabulary": "text"})

    def goes_behind(self, taken: Sequence[Candidate], sought: Sought) -> bool:
        return not taken

    def check(self, sought: Sought, read: float) -> None:
        try:
            super().check(sought, read)
        except OtherVocabulary:
            for checkpoint in (sought.checkpoint, self._opened(sought)):
                if (reason := unspeakable(checkpoint.tokenizer())) is not None:
                    raise ModelError(f"it would have to draft text, and {reason}") from None


Finder = Callable[[Sought], Iterable[Candidate]]
"""Candidates of one kind of place. It reads names and small files; nothing is downloaded."""


def weights_size(path: Path) -> int:
    """Bytes of a model's weights: of a GGUF file and the other parts of it, or in a folder."""
    if path.is_file():
        parts = [path.with_name(name) for name in part_names(path.name)]
        return sum(part.stat().st_size for part in parts if part.is_file())
    for pattern in ("*.safetensors", "*.gguf", "*.bin"):
        if files := [*path.glob(pattern)]:
            return sum(file.stat().st_size for file in files)
    return 0
