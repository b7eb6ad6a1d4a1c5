"""The kinds of drafter. A new kind is one file and one line in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from outrider.cache.division import Size
from outrider.config import EngineConfig
from outrider.drafting.assistant import AssistantDrafter
from outrider.drafting.base import Drafter
from outrider.drafting.head import HeadDrafter
from outrider.drafting.model import ModelDrafter
from outrider.drafting.self_draft import self_draft
from outrider.drafting.suffix import SuffixDrafter
from outrider.drafting.suffix_file import SuffixFile
from outrider.drafting.suffix_store import SuffixStore
from outrider.drafting.text import UNSETTLED, Speaker, Translation
from outrider.drafting.text_drafter import FINER, TextDrafter
from outrider.drafting.vocabulary import Vocabulary, check_same_vocabulary, first_difference
from outrider.drafting.workloads import WORKLOADS
from outrider.loading import Listener, unheard
from outrider.models.assistant import Assistant
from outrider.models.assistant_checkpoint import AssistantCheckpoint, is_assistant
from outrider.models.checkpoint import Checkpoint, locate, open_checkpoint
from outrider.models.eagle3 import Eagle3
from outrider.models.head import DraftHead, HeadRunner
from outrider.models.head_checkpoint import HeadCheckpoint, is_head, locate_head
from outrider.models.model import Model
from outrider.models.mtp import Mtp, mtp_of
from outrider.models.runner import Cached, DraftRunner, group_sizes
from outrider.models.tokenizer import Tokenizer
from outrider.models.words import words_of
from outrider.ops.base import Backend
from outrider.option_types import Quantization
from outrider.speculative_config import DrafterConfig, SpeculativeConfig
from outrider.verification.rules import RULES, Acceptance

HEAD_ROWS = 4  # rows of a head in the time of one of its target's, modestly counted


class DraftBackend(Protocol):
    """Where a draft is computed whose weights have a format of their own; see `outrider.engine.backend`."""

    def __call__(
        self, checkpoint: Checkpoint, quantization: Quantization | None, *, option: str
    ) -> Backend: ...


class DrafterSource(Protocol):
    """A drafter that is loaded but has no cache yet, since the cache's size depends on what it needs."""

    @property
    def groups(self) -> Sequence[Size]:
        """What the blocks of its own cache take, by group of layers; none if it keeps no cache."""

    def build(self, num_blocks: Sequence[int]) -> Drafter:
        """The drafter, with so many cache blocks of each group."""


@dataclass(frozen=True)
class Cacheless:
    """A drafter without a cache."""

    make: Callable[[], Drafter]
    groups: Sequence[Size] = ()

    def build(self, num_blocks: Sequence[int]) -> Drafter:
        return self.make()


@dataclass(frozen=True)
class WithCache:
    """A drafter with a cache beside the target's. make: from the numbers of blocks."""

    groups: Sequence[Size]
    make: Callable[[Sequence[int]], Drafter]

    def build(self, num_blocks: Sequence[int]) -> Drafter:
        return self.make(num_blocks)


def longest_draft(speculative: SpeculativeConfig | None) -> int:
    """Tokens of a draft at most, where no request asks for a length of its own."""
    if speculative is None:
        return 0
    length = speculative.num_speculative_tokens
    return WORKLOADS[speculative.workload].most if length == "auto" else length


def draft_rows(speculative: SpeculativeConfig | None) -> int:
    """The same with what stands beside a chain: "auto" may draft as many next best tokens, where a rule takes
    trees."""
    if speculative is None or speculative.num_speculative_tokens != "auto":
        return longest_draft(speculative)
    return longest_draft(speculative) * (2 if RULES[speculative.acceptance].trees else 1)


@dataclass(frozen=True)
class Surroundings:
    """What a drafter is loaded for.

    checkpoint: the target's. quantised: makes the backend of a draft at other bits than the target's.
    prompt_rows: that one pass may take to catch up with prompts. listener: hears of the loading.
    """

    config: EngineConfig
    speculative: SpeculativeConfig
    checkpoint: Checkpoint
    target: Model
    tokenizer: Tokenizer
    quantised: DraftBackend
    prompt_rows: int
    listener: Listener

    @property
    def rule(self) -> Acceptance:
        """The rule by which drafts are judged."""
        return RULES[self.speculative.acceptance]

    @property
    def longest(self) -> int:
        """Tokens of a draft at most."""
        return longest_draft(self.speculative)


def _suffix(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    said, file = around.speculative, None
    if said.suffix_file is not None:
        target = around.target.config.vocab_size
        file = SuffixFile(
            Path(said.suffix_file), Vocabulary.of(around.config.model, around.tokenizer, target)
        )
    store = SuffixStore(said.suffix_memory, file)
    return Cacheless(lambda: SuffixDrafter(said.prompt_lookup_min, said.prompt_lookup_max, store))


def _draft_model(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    name = drafter.model or ""  # the configuration has seen to it that there is one
    path = locate(name)
    if is_assistant(path):
        return _assistant(path, around)
    if is_head(path):
        return _head(drafter, around)
    model, target, quantization = around.target, around.config.model, around.speculative.draft_quantization
    option = f"draft_quantization = {quantization!r}"
    translation = None
    if name != target:
        checkpoint = open_checkpoint(name)
        translation = _translation(name, checkpoint, around)
        backend = model.backend
        if quantization is not None:
            backend = around.quantised(checkpoint, quantization, option=option)
        words = around.speculative.draft_vocab_size
        model = Model(checkpoint, backend, words=words, name=name, listener=around.listener)
    elif quantization is not None:
        model = _own(quantization, around, option)
    return _with_cache(model, around) if translation is None else _of_text(model, translation, around)


def _translation(name: str, checkpoint: Checkpoint, around: Surroundings) -> Translation | None:
    """How the draft model of this name drafts text; None where it has the target's vocabulary.

    Raises ModelError if it may not draft text, or cannot.
    """
    target, draft = (
        Speaker(model, tokenizer, config.vocab_size, config.eos_token_ids)
        for model, tokenizer, config in (
            (around.config.model, around.tokenizer, around.target.config),
            (name, checkpoint.tokenizer(), checkpoint.config),
        )
    )
    vocabularies = [Vocabulary.of(each.model, each.tokenizer, each.rows) for each in (target, draft)]
    if around.speculative.draft_vocabulary == "same":
        check_same_vocabulary(*vocabularies)
    return None if first_difference(*vocabularies) is None else Translation(target, draft)


def _self(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    assert drafter.quantization is not None  # as the configuration has seen to
    return _with_cache(_own(drafter.quantization, around, f"speculative_model = {drafter.name!r}"), around)


def _own(quantization: Quantization, around: Surroundings, option: str) -> Model:
    """The target at fewer bits."""
    backend = around.quantised(around.checkpoint, quantization, option=option)
    return self_draft(
        around.target,
        around.checkpoint,
        backend,
        quantization,
        words=around.speculative.draft_vocab_size,
        option=option,
        listener=around.listener,
    )


def _with_cache(model: Model, around: Surroundings) -> DrafterSource:
    vocab = around.target.config.vocab_size

    def make(num_blocks: Sequence[int]) -> Drafter:
        runner = _runner(model, num_blocks, vocab, around)
        return ModelDrafter(runner, around.rule, max_rows=around.prompt_rows)

    return WithCache(_sizes(model, around, around.prompt_rows), make)


def _of_text(model: Model, translation: Translation, around: Surroundings) -> DrafterSource:
    def make(num_blocks: Sequence[int]) -> Drafter:
        runner = _runner(model, num_blocks, translation.draft.size, around)
        return TextDrafter(runner, around.rule, translation, max_rows=around.prompt_rows)

    return WithCache(_sizes(model, around, around.prompt_rows + longest_text(around.longest)), make)


def longest_text(length: int) -> int:
    """Tokens of a draft model of another vocabulary that are not settled, beside a draft of so many of the
    target's, and what it has more for these than one each."""
    return UNSETTLED + (FINER - 1) * length


def _runner(
    model: Model, num_blocks: Sequence[int], vocab: int, around: Surroundings
) -> Callable[[], DraftRunner]:
    """Makes what runs a draft model that can say so many tokens."""
    return lambda: DraftRunner(
        model,
        num_blocks=num_blocks,
        block_size=around.config.block_size,
        prefix_caching=around.config.enable_prefix_caching,
        words=words_of(model, vocab),
    )


def _head(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    quantization, name = around.speculative.draft_quantization, drafter.model or ""
    checkpoint = HeadCheckpoint(locate_head(name))
    layers = checkpoint.layers(around.target.config, around.config.model)
    option = f"draft_quantization = {quantization!r}"
    backend = around.quantised(around.checkpoint, quantization, option=option)
    head = Eagle3(checkpoint, backend, around.target, name=name, listener=around.listener)
    return _with_states(head, layers, around)


def _mtp(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    checkpoint, target, quantization = (
        around.checkpoint,
        around.target,
        around.speculative.draft_quantization,
    )
    parts = mtp_of(checkpoint, around.config.model)
    backend = target.backend
    if quantization is not None:
        option = f"draft_quantization = {quantization!r}"
        backend = around.quantised(checkpoint, quantization, option=option)
    head = Mtp(parts, checkpoint, backend, target, listener=around.listener)
    return _with_states(head, (target.config.num_layers,), around)


def _with_states(head: DraftHead, layers: Sequence[int], around: Surroundings) -> DrafterSource:
    """layers: those of the target whose inputs the head reads."""
    config, vocab = around.config, around.target.config.vocab_size
    rows = HEAD_ROWS * around.prompt_rows

    def make(num_blocks: Sequence[int]) -> Drafter:
        return HeadDrafter(
            lambda head: HeadRunner(head, num_blocks=num_blocks, block_size=config.block_size, vocab=vocab),
            head,
            around.rule,
            state_layers=layers,
            max_rows=rows,
        )

    return WithCache(_sizes(head, around, rows), make)


def _assistant(path: Path, around: Surroundings) -> DrafterSource:
    quantization = around.speculative.draft_quantization
    option = f"draft_quantization = {quantization!r}"
    backend = around.quantised(around.checkpoint, quantization, option=option)
    checkpoint = AssistantCheckpoint(path)
    assistant = Assistant(checkpoint, backend, around.target, name=str(path), listener=around.listener)
    layers = around.target.config.num_layers
    return Cacheless(lambda: AssistantDrafter(assistant, around.rule, layers=layers))


def _sizes(model: Cached, around: Surroundings, rows: int) -> tuple[Size, ...]:
    return group_sizes(model, around.config.block_size, rows + around.longest, around.longest)


SOURCES = {"suffix": _suffix, "draft_model": _draft_model, "head": _head, "mtp": _mtp, "self": _self}


def load_drafters(
    config: EngineConfig,
    checkpoint: Checkpoint,
    target: Model,
    tokenizer: Tokenizer,
    *,
    quantised: DraftBackend,
    prompt_rows: int,
    listener: Listener = unheard,
) -> tuple[DrafterSource, ...]:
    """The drafters that the configuration names.

    Raises ModelError for one that does not fit the target, ConfigError for one that its backend cannot run.
    """
    if config.speculative is None:
        return ()
    around = Surroundings(
        config, config.speculative, checkpoint, target, tokenizer, quantised, prompt_rows, listener
    )
    return tuple(SOURCES[drafter.method](drafter, around) for drafter in config.speculative.drafters)
