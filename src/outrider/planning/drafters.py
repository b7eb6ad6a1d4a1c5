"""What each kind of drafter takes.

Every kind of `outrider.drafting.registry.SOURCES` has a line in `FOOTPRINTS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from outrider.config import EngineConfig
from outrider.drafting.head import MAX_UNREAD
from outrider.drafting.registry import HEAD_ROWS, longest_draft, longest_text
from outrider.drafting.self_draft import self_draft
from outrider.engine.build import prompt_rows_of
from outrider.engine.profile import MANY, ROWS
from outrider.models.assistant import Assistant
from outrider.models.assistant_checkpoint import AssistantCheckpoint, is_assistant
from outrider.models.checkpoint import Checkpoint, locate
from outrider.models.eagle3 import Eagle3
from outrider.models.head import DraftHead
from outrider.models.head_checkpoint import HeadCheckpoint, is_head, locate_head
from outrider.models.model import Model
from outrider.models.mtp import Mtp, mtp_of
from outrider.models.words import MOST_READ
from outrider.option_types import Quantization
from outrider.planning.footprint import Footprint, footprint_of, model_footprint, passing_of
from outrider.planning.ledger import Ledger, Outline, draft_ledger, ledger_of
from outrider.planning.passes import PassSize
from outrider.speculative_config import DrafterConfig, SpeculativeConfig

COPIES = 4  # of distributions, while they are computed


@dataclass(frozen=True)
class Drafting:
    """What a drafter is planned for. checkpoint, target: the target's, which was loaded into `ledger`; size:
    its largest pass; requests: how many draft at once; open: the checkpoint of a name."""

    config: EngineConfig
    speculative: SpeculativeConfig
    checkpoint: Checkpoint
    target: Model
    ledger: Ledger
    size: PassSize
    requests: int
    open: Callable[[str], Checkpoint]

    @property
    def drafting(self) -> PassSize:
        """A drafter's largest pass: for all requests at once."""
        requests = max(self.requests, MANY if profiled_rows(self.speculative) else 0)
        return replace(self.size, logit_rows=requests)


def profiled_rows(speculative: SpeculativeConfig | None) -> int:
    """Rows of the passes by which costs are measured; 0 where none are."""
    auto = speculative is not None and speculative.num_speculative_tokens == "auto"
    return max(ROWS) if auto else 0


def drafter_footprint(drafter: DrafterConfig, around: Drafting) -> Footprint:
    """The footprint of one drafter. Raises ModelError for a model that cannot be opened."""
    footprint = FOOTPRINTS[drafter.method](drafter, around)
    if around.speculative.acceptance == "coupled":
        return footprint
    # The other rules want the distribution behind every drafted token, in float64, and copies of those of one
    # request while they are computed.
    longest = longest_draft(around.speculative)
    rows = around.requests * longest + COPIES * (1 + longest)
    return replace(footprint, passing=footprint.passing + 8 * rows * around.target.config.vocab_size)


def _suffix(drafter: DrafterConfig, around: Drafting) -> Footprint:
    keeps = around.ledger.keeps
    return Footprint(weights=keeps.texts * around.speculative.suffix_memory, position=keeps.matched)


def _draft_model(drafter: DrafterConfig, around: Drafting) -> Footprint:
    name = drafter.model or ""  # the configuration has seen to it that there is one
    path = locate(name)
    if is_assistant(path):
        return _assistant(path, around)
    if is_head(path):
        return _head(drafter, around)
    config, quantization = around.config, around.speculative.draft_quantization
    option = f"draft_quantization = {quantization!r}"
    if name != config.model:
        return _separate(around.open(name), quantization, around, option)
    if quantization is not None:
        return _own(quantization, around, option)
    footprint = model_footprint(around.target, around.ledger, around.drafting, config.block_size)
    return replace(footprint, weights=0, peak=0)


def _separate(
    checkpoint: Checkpoint, quantization: Quantization | None, around: Drafting, option: str
) -> Footprint:
    """The footprint of a model that is loaded beside the target."""
    config, size, vocab = around.config, around.drafting, checkpoint.config.vocab_size
    if quantization is None:
        ledger = ledger_of(config, checkpoint)
    else:
        ledger = draft_ledger(config, around.ledger, checkpoint, quantization, option=option)
    keeps = ledger.keeps
    tokenizer, position = keeps.dropped * vocab, 0
    if around.speculative.draft_vocabulary == "text":  # whether it needs to is not known before it is loaded
        tokenizer = keeps.tokenizer * vocab + keeps.spelt * (vocab + around.target.config.vocab_size)
        position = keeps.position
        size = replace(size, ahead=size.ahead + longest_text(longest_draft(around.speculative)))
    draft = Model(Outline(checkpoint), ledger, words=around.speculative.draft_vocab_size)
    footprint = _of_words(draft, ledger, size, around)
    return replace(
        footprint,
        peak=max(footprint.peak + keeps.dropped * vocab, (keeps.making + keeps.vocabularies) * vocab),
        passing=footprint.passing + tokenizer,
        position=footprint.position + position,
    )


def _self(drafter: DrafterConfig, around: Drafting) -> Footprint:
    assert drafter.quantization is not None  # as the configuration has seen to
    return _own(drafter.quantization, around, f"speculative_model = {drafter.name!r}")


def _own(quantization: Quantization, around: Drafting, option: str) -> Footprint:
    """The footprint of the target at fewer bits."""
    config, checkpoint = around.config, around.checkpoint
    ledger = draft_ledger(config, around.ledger, checkpoint, quantization, option=option)
    words = around.speculative.draft_vocab_size
    draft = self_draft(around.target, Outline(checkpoint), ledger, quantization, words=words, option=option)
    return _of_words(draft, ledger, around.drafting, around)


def _of_words(draft: Model, ledger: Ledger, size: PassSize, around: Drafting) -> Footprint:
    """The footprint of a draft model. It mostly reads the outputs of its frequent words, where it has such,
    in place of all."""
    unread = 0
    if draft.some_outputs is not None:
        rows = min(draft.words + MOST_READ, draft.tree.vocab_size)
        draft.some_outputs(np.arange(rows, dtype=np.int32))
        # The target's own table is in the target's ledger.
        unread = sum(part.nbytes for part in draft.output if part is not around.target.table)
    footprint = model_footprint(draft, ledger, size, around.config.block_size)
    return replace(footprint, read=footprint.read - unread)


def _head(drafter: DrafterConfig, around: Drafting) -> Footprint:
    config, quantization = around.config, around.speculative.draft_quantization
    checkpoint = HeadCheckpoint(locate_head(drafter.model or ""))
    checkpoint.layers(around.checkpoint.config, config.model)
    option = f"draft_quantization = {quantization!r}"
    ledger = draft_ledger(config, around.ledger, around.checkpoint, quantization, option=option)
    return _with_states(Eagle3(checkpoint, ledger, around.target), ledger, around)


def _mtp(drafter: DrafterConfig, around: Drafting) -> Footprint:
    config, checkpoint, quantization = (
        around.config,
        around.checkpoint,
        around.speculative.draft_quantization,
    )
    parts = mtp_of(checkpoint, config.model)
    if quantization is None:
        ledger = ledger_of(config, checkpoint)
    else:
        option = f"draft_quantization = {quantization!r}"
        ledger = draft_ledger(config, around.ledger, checkpoint, quantization, option=option)
    return _with_states(Mtp(parts, Outline(checkpoint), ledger, around.target), ledger, around)


def _with_states(head: DraftHead, ledger: Ledger, around: Drafting) -> Footprint:
    """The footprint of a head, and of the states that it reads."""
    config = around.config
    prompt_rows = prompt_rows_of(config, ledger.facts)
    rows = HEAD_ROWS * prompt_rows
    size = replace(around.drafting, rows=rows, ahead=rows + longest_draft(around.speculative))
    footprint = footprint_of(head, ledger, size, config.block_size, width=head.width, vocab=len(head.targets))
    # States that a pass of the target hands out, and those that wait while a request does not draft.
    waiting = around.requests * min(MAX_UNREAD + prompt_rows, around.size.positions)
    read = max(waiting // around.requests, rows)  # are joined: those of one request, and then of all
    states = 4 * head.states_width * (around.size.rows + waiting + read)
    edited = ledger.choosing(around.target.config.vocab_size, size.logit_rows)  # among the target's tokens
    return replace(footprint, passing=footprint.passing + states + edited)


def _assistant(path: Path, around: Drafting) -> Footprint:
    """The footprint of an assistant, which has no cache."""
    quantization = around.speculative.draft_quantization
    option = f"draft_quantization = {quantization!r}"
    ledger = draft_ledger(around.config, around.ledger, around.checkpoint, quantization, option=option)
    assistant = Assistant(AssistantCheckpoint(path), ledger, around.target)
    size = replace(around.drafting, rows=around.drafting.logit_rows)
    passing = passing_of(
        ledger, size, assistant.shapes, width=assistant.parts.width, vocab=assistant.vocab_size
    )
    # States that a pass of the target hands out, and one of each request that is kept and joined.
    states = 4 * assistant.backbone * (around.size.rows + 2 * size.logit_rows)
    return Footprint(weights=ledger.stays, peak=ledger.peak, passing=passing + states, read=ledger.stays)


FOOTPRINTS: dict[str, Callable[[DrafterConfig, Drafting], Footprint]] = {
    "suffix": _suffix,
    "draft_model": _draft_model,
    "head": _head,
    "mtp": _mtp,
    "self": _self,
}
