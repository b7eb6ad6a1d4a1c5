"""What there is to draft for a model: on this disk and in public, with what each costs and gives."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path

from outrider.config import EngineConfig, resolve
from outrider.finding.auto import Finding, weighed
from outrider.finding.public import PublicDraft, public_table
from outrider.models.checkpoint import HUB_ID, IN_HUB, locate, open_checkpoint
from outrider.models.hub_cache import cached_repository, cached_snapshots
from outrider.speculative_config import LOOKUP


@dataclass(frozen=True)
class DraftSurvey:
    """What there is for a model.

    path: its folder or file, None where it is not on this disk; family: as the table of public drafts has it;
    found: candidates on this disk, the best first; public: drafts that can be downloaded, as they were on the
    day `checked`; head: where to make a head for it.
    """

    model: str
    path: Path | None
    family: str | None
    found: tuple[Finding, ...]
    public: tuple[PublicDraft, ...]
    checked: date
    head: Path

    @property
    def taken(self) -> list[Finding]:
        """What 'auto' takes beside lookup."""
        return [finding for finding in self.found if finding.taken]

    @property
    def chain(self) -> list[str]:
        """The drafters of 'auto', by their names."""
        return [LOOKUP.name, *(finding.candidate.drafter.name for finding in self.taken)]


def survey_drafts(model: str, **options: object) -> DraftSurvey:
    """What there is. Nothing is downloaded: a model of the hub that is not in its cache has the table alone.

    options: those of LLM with which it would be loaded. Raises ModelError for a model that cannot be opened.
    """
    local = _on_disk(model)
    table = public_table()
    if local is None:
        names, path, architecture = [_bare(model)], None, None
        found: tuple[Finding, ...] = ()
    else:
        config: EngineConfig = resolve(local, **{**options, "speculative_model": "auto"})
        architecture = open_checkpoint(local, tokenizer=config.tokenizer).config.architecture
        path = locate(local)
        found = tuple(weighed(config, every=True))
        names = [_bare(model), path.name, *filter(None, [cached_repository(path)])]
    return DraftSurvey(
        model=model,
        path=path,
        family=table.family(architecture, names),
        found=found,
        public=table.named(names),
        checked=table.checked,
        head=_head_of(model, path),
    )


def _on_disk(model: str) -> str | None:
    """The model as it is opened without the hub; None where it is not on this disk."""
    repository = _bare(model)
    if Path(model).expanduser().exists() or not HUB_ID.fullmatch(repository):
        return model
    for cached, path in cached_snapshots():
        if cached == repository:
            return str(path) + model.removeprefix(repository)
    return None


def _bare(model: str) -> str:
    """A repository of the hub without the file or the quantisation of it that is meant."""
    found = IN_HUB.fullmatch(model)
    return found[1] if found and not Path(model).exists() else model


def _head_of(model: str, path: Path | None) -> Path:
    """Where a head is found beside its target; in the current folder for a target in the hub's cache or in a
    package, where nobody writes."""
    if path is None or not Path(model).expanduser().exists():
        return Path(f"{_bare(model).rpartition('/')[2]}-head")
    return path / "head" if path.is_dir() else path.with_name(f"{path.stem}-head")
