"""`outrider drafts`: what there is to draft for a model, and how to get it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.padding import Padding
from rich.text import Text

from outrider.cli.console import print_json, say, stdout
from outrider.cli.importing import importing
from outrider.cli.options import (
    JsonOption,
    PositionalModel,
    SameModelOption,
    SettingOption,
    one_model,
    settings_of,
)
from outrider.cli.startup import starting
from outrider.loading import Loading

if TYPE_CHECKING:
    from outrider.finding.auto import Finding
    from outrider.finding.public import PublicDraft
    from outrider.finding.survey import DraftSurvey

UNKNOWN = "not measured"


def drafts(
    name: PositionalModel = None,
    model: SameModelOption = None,
    setting: SettingOption = None,
    as_json: JsonOption = False,
) -> None:
    """List what can draft for a model, and how to get it.

    What lies on this disk, with what each takes in memory, and what is public, with sizes, licences and the
    command that downloads it. Nothing is downloaded here; of a model that is not on this disk, what is public
    is listed. What a draft gives is told only where somebody has measured it.
    """
    chosen = one_model(name, model)
    with starting(quiet=as_json) as listener:
        with importing():
            from outrider.finding.survey import survey_drafts

        listener(Loading(f"looking for drafts for {chosen}"))
        found = survey_drafts(chosen, **settings_of(setting))
    if as_json:
        print_json(_as_json(found))
    else:
        _print(found)


def _print(found: DraftSurvey) -> None:
    from outrider.speculative_config import LOOKUP

    family = f" ({found.family})" if found.family else ""
    say(stdout, Text(f"Drafts for {found.model}{family}", "bold"))
    _heading("On this disk")
    _entry(
        LOOKUP.name, ["looks up how the text went on before; costs nothing, and is asked before any other"]
    )
    for finding in found.found:
        _entry(finding.candidate.label, _of_candidate(finding), taken=finding.taken)
    if found.path is None:
        _entry(None, [f"{found.model} is not on this disk, so that nothing can be tried with it"])
    elif found.taken:
        _entry(None, ["*: what 'auto' takes, the default of the command line"])
    _heading(f"To download (checked on {found.checked})")
    for draft in found.public:
        _entry(draft.repository, _of_public(draft), draft.command)
    if not found.public:
        _entry(None, ["no public draft for this model is known here; lookup works with every model"])
    _heading("To make")
    _entry(None, ["a head that learns from this very model, with PyTorch:"], _distill(found))
    if found.head.parent == Path():
        _entry(None, ["which is named where it is used:"], f"-d {LOOKUP.name} -d ./{found.head}")


def _heading(text: str) -> None:
    stdout.print()
    say(stdout, Text(text, "bold"))


def _entry(label: str | None, lines: list[str], command: str | None = None, *, taken: bool = False) -> None:
    """A name, what there is to say of it, and a command to copy, which is not broken at the edge."""
    if label is not None:
        stdout.print(f"{'*' if taken else ' '} {label}", highlight=False, markup=False, soft_wrap=True)
    for line in lines:
        stdout.print(Padding(Text(line, "dim"), (0, 0, 0, 4), expand=False))
    if command is not None:
        stdout.print(f"    {command}", highlight=False, markup=False, soft_wrap=True)


def _of_candidate(finding: Finding) -> list[str]:
    candidate, cost, of_one = finding.candidate, finding.cost, finding.of_one
    size = "" if candidate.size is None else f", {_size(candidate.size)}"
    said = [f"{candidate.kind} {candidate.where}{size}"]
    if finding.quantization is not None:
        said.append(f"becomes {finding.quantization} when it is loaded")
    if finding.vocab_size is not None:
        said.append(f"says {finding.vocab_size} tokens")
    if cost is not None and of_one is not None:
        more = f", {_size(cost.memory)} for {cost.requests} at a time" if cost.requests > 1 else ""
        said.append(
            f"takes {_size(of_one.memory)} of memory for one request{more}, and {_size(cost.position)} a "
            f"position; reads {cost.read:.0%} of the target's bytes for a token"
        )
    gives = candidate.measured or UNKNOWN
    return ["; ".join([*said, gives])] + ([f"not taken: {finding.reason}"] if finding.reason else [])


def _of_public(draft: PublicDraft) -> list[str]:
    from outrider.finding.public import KINDS, UNREAD

    size = "size not told" if draft.size is None else f"about {_size(draft.size)}, and as much memory"
    said = [KINDS[draft.kind], size, f"licence {draft.licence}" if draft.licence else "licence on its page"]
    lines = ["; ".join([", ".join(said), draft.measured or UNKNOWN])]
    return lines + (["this version does not run it"] if draft.kind in UNREAD else [])


def _distill(found: DraftSurvey) -> str:
    return shlex.join(["outrider", "distill", "--target", found.model, "--out", str(found.head)])


def _size(number: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} bytes"


def _as_json(found: DraftSurvey) -> dict[str, Any]:
    return {
        "model": found.model,
        "family": found.family,
        "on_disk": found.path is not None,
        "auto": found.chain,
        "found": [dict(_candidate_as_json(finding)) for finding in found.found],
        "public": [
            draft.model_dump(mode="json") | {"bytes": draft.size, "command": draft.command}
            for draft in found.public
        ],
        "checked": str(found.checked),
        "distill": _distill(found),
    }


def _candidate_as_json(finding: Finding) -> Iterator[tuple[str, Any]]:
    candidate, cost, of_one = finding.candidate, finding.cost, finding.of_one
    yield "name", candidate.label
    yield "speculative_model", candidate.drafter.name
    yield "kind", candidate.kind
    yield "where", candidate.where
    yield "bytes", candidate.size
    yield "fits", finding.config is not None
    yield "reason", finding.reason or None
    yield "taken", finding.taken
    yield "draft_quantization", finding.quantization
    yield "draft_vocab_size", finding.vocab_size
    yield "weights_bytes", None if cost is None else cost.weights
    yield "memory_bytes", None if cost is None else cost.memory
    yield "requests", None if cost is None else cost.requests
    yield "memory_bytes_of_one", None if of_one is None else of_one.memory
    yield "cache_per_position", None if cost is None else cost.position
    yield "read_share", None if cost is None else cost.read
    yield "measured", candidate.measured
