"""Drafts that are public: a table of repositories, each checked against its pages."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from outrider.finding.names import words
from outrider.validation import Strict

Kind = Literal["head", "model", "mtp", "assistant", "dspark"]
KINDS: dict[Kind, str] = {
    "head": "EAGLE-3 head",
    "model": "draft model",
    "mtp": "MTP layers, in the target's own files",
    "assistant": "assistant that reads the target's K and V",
    "dspark": "DSpark drafter",
}
"""What each kind is, in words."""
UNREAD: frozenset[Kind] = frozenset({"dspark"})
"""Kinds that this version does not run."""
Text = Annotated[str, Field(min_length=1)]


class PublicDraft(Strict):
    """A draft that can be downloaded. What its pages do not say is None."""

    repository: Text
    """Its name on the Hugging Face hub."""
    kind: Kind
    targets: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The models that it is for, by their names on the hub without the owner's."""
    source: Text
    """The page by which it was checked."""
    file: Text | None = None
    """The one GGUF file of it to download; None: all of it."""
    parameters: PositiveInt | None = None
    bytes: PositiveInt | None = None
    """The size of the file, or of the repository's weights."""
    licence: Text | None = None
    measured: Text | None = None
    """What the source says it gives, and under which conditions."""

    @property
    def size(self) -> int | None:
        """Bytes that it takes on the disk, and in memory about as many: of 16-bit weights where only their
        number is known."""
        if self.bytes is None and self.parameters is not None:
            return 2 * self.parameters
        return self.bytes

    @property
    def command(self) -> str:
        """Downloads it into the hub's cache, where it is found."""
        return " ".join(["hf download", self.repository, *([self.file] if self.file else [])])


class PublicTable(Strict):
    """checked: the day on which the sources were looked at. families: names of families, each with its
    `architectures` of config.json; draft: all drafts."""

    checked: date
    families: dict[str, tuple[str, ...]]
    draft: tuple[PublicDraft, ...]

    def named(self, names: Iterable[str]) -> tuple[PublicDraft, ...]:
        """The drafts for a model, by its names. Of each kind those whose target has most words in common with
        a name, and no word that the name does not have."""
        best: dict[Kind, int] = {}
        matches: list[tuple[int, PublicDraft]] = []
        for draft in self.draft:
            match = max((_match(target, name) for target in draft.targets for name in names), default=0)
            best[draft.kind] = max(match, best.get(draft.kind, 0))
            matches.append((match, draft))
        return tuple(draft for match, draft in matches if match and match == best[draft.kind])

    def measured(self, repository: str) -> str | None:
        """What a repository's drafts are known to give."""
        return next((draft.measured for draft in self.draft if draft.repository == repository), None)

    def family(self, architecture: str | None, names: Iterable[str]) -> str | None:
        """The family of a model, by its names or else by its architecture; None where it is not listed."""
        said = {word for name in names for word in words(name)}
        named = [family for family in self.families if words(family) <= said]
        listed = [family for family, own in self.families.items() if architecture in own]
        return max(named, key=lambda family: len(words(family)), default=None) or next(iter(listed), None)


@cache
def public_table() -> PublicTable:
    """The table that comes with this package."""
    text = (files("outrider") / "finding" / "public.toml").read_text(encoding="utf-8")
    return PublicTable(**tomllib.loads(text))


def _match(target: str, name: str) -> int:
    own = words(target)
    return len(own) if own <= words(name) else 0
