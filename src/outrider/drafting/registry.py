"""The kinds of drafter. A new kind is one file and one line in `SOURCES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from outrider.config import DrafterConfig, EngineConfig, Quantization, SpeculativeConfig
from outrider.drafting.base import Drafter
from outrider.drafting.head import HeadDrafter
from outrider.drafting.model import ModelDrafter
from outrider.drafting.ngram import NgramDrafter
from outrider.drafting.self_draft import self_draft
from outrider.drafting.vocabulary import ShortTable, Vocabulary, check_same_vocabulary
from outrider.models.checkpoint import Checkpoint, locate, open_checkpoint
from outrider.models.eagle3 import Eagle3, HeadRunner
from outrider.models.head_checkpoint import HeadCheckpoint, is_head, locate_head
from outrider.models.llama import Llama
from outrider.models.runner import ModelRunner, block_bytes
from outrider.ops.base import Backend
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
    def block_bytes(self) -> int:
        """Bytes that one cache block takes for this drafter, 0 if it keeps none."""

    def build(self, num_blocks: int) -> Drafter:
        """The drafter, with `num_blocks` cache blocks of its own."""


@dataclass(frozen=True)
class Cacheless:
    """A drafter without a cache."""

    make: Callable[[], Drafter]
    block_bytes: int = 0

    def build(self, num_blocks: int) -> Drafter:
        return self.make()


@dataclass(frozen=True)
class WithCache:
    """A drafter with a cache beside the target's. make: from a number of blocks."""

    block_bytes: int
    make: Callable[[int], Drafter]

    def build(self, num_blocks: int) -> Drafter:
        return self.make(num_blocks)


@dataclass(frozen=True)
class Surroundings:
    """What a drafter is loaded for.

    checkpoint: the target's. quantised: makes the backend of a draft at other bits than the target's.
    prompt_rows: that one pass may take to catch up with prompts.
    """

    config: EngineConfig
    speculative: SpeculativeConfig
    checkpoint: Checkpoint
    target: Llama
    tokenizer: PreTrainedTokenizerBase
    quantised: DraftBackend
    prompt_rows: int

    @property
    def rule(self) -> Acceptance:
        """By which drafts are judged."""
        return RULES[self.speculative.acceptance]


def _ngram(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    shortest, longest = around.speculative.prompt_lookup_min, around.speculative.prompt_lookup_max
    return Cacheless(lambda: NgramDrafter(shortest, longest))


def _draft_model(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    name = drafter.model or ""  # the configuration has seen to it that there is one
    path = locate(name)
    if is_head(path):
        return _head(drafter, around)
    model, target, quantization = around.target, around.config.model, around.speculative.draft_quantization
    option = f"draft_quantization = {quantization!r}"
    if name != target:
        checkpoint = open_checkpoint(name)
        check_same_vocabulary(
            Vocabulary.of(target, around.tokenizer, around.target.config.vocab_size),
            Vocabulary.of(name, checkpoint.tokenizer(), checkpoint.config.vocab_size),
        )
        backend = model.backend
        if quantization is not None:
            backend = around.quantised(checkpoint, quantization, option=option)
        model = Llama(checkpoint, backend)
    elif quantization is not None:
        model = _own(quantization, around, option)
    return _with_cache(model, around)


def _self(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    assert drafter.quantization is not None  # as the configuration has seen to
    return _with_cache(_own(drafter.quantization, around, f"speculative_model = {drafter.name!r}"), around)


def _own(quantization: Quantization, around: Surroundings, option: str) -> Llama:
    """The target at fewer bits."""
    backend = around.quantised(around.checkpoint, quantization, option=option)
    return self_draft(around.target, around.checkpoint, backend, quantization, option=option)


def _with_cache(model: Llama, around: Surroundings) -> DrafterSource:
    config, vocab = around.config, around.target.config.vocab_size
    kind = ShortTable if model.config.vocab_size < vocab else ModelRunner

    def make(num_blocks: int) -> Drafter:
        def runner() -> ModelRunner:
            return kind(
                model,
                num_blocks=num_blocks,
                block_size=config.block_size,
                prefix_caching=config.enable_prefix_caching,
            )

        return ModelDrafter(runner, around.rule, vocab=vocab, max_rows=around.prompt_rows)

    return WithCache(block_bytes(model, config.block_size), make)


def _head(drafter: DrafterConfig, around: Surroundings) -> DrafterSource:
    config, quantization = around.config, around.speculative.draft_quantization
    checkpoint = HeadCheckpoint(locate_head(drafter.model or ""))
    layers = checkpoint.layers(around.target.config, config.model)
    option = f"draft_quantization = {quantization!r}"
    backend = around.quantised(around.checkpoint, quantization, option=option)
    head = Eagle3(checkpoint, backend, around.target)

    def make(num_blocks: int) -> Drafter:
        return HeadDrafter(
            lambda: HeadRunner(head, num_blocks=num_blocks, block_size=config.block_size),
            head,
            around.rule,
            state_layers=layers,
            vocab=around.target.config.vocab_size,
            max_rows=HEAD_ROWS * around.prompt_rows,
        )

    return WithCache(block_bytes(head, config.block_size), make)


SOURCES = {"ngram": _ngram, "draft_model": _draft_model, "head": _head, "self": _self}


def load_drafters(
    config: EngineConfig,
    checkpoint: Checkpoint,
    target: Llama,
    tokenizer: PreTrainedTokenizerBase,
    *,
    quantised: DraftBackend,
    prompt_rows: int,
) -> tuple[DrafterSource, ...]:
    """The drafters that the configuration names.

    Raises ModelError for one that does not fit the target, ConfigError for one that its backend cannot run.
    """
    if config.speculative is None:
        return ()
    around = Surroundings(config, config.speculative, checkpoint, target, tokenizer, quantised, prompt_rows)
    return tuple(SOURCES[drafter.method](drafter, around) for drafter in config.speculative.drafters)
