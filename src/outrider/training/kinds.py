"""The kinds of draft that can be made: what of the target is recorded for each, and what it is taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from outrider.errors import ConfigError, ModelError
from outrider.models.checkpoint import Checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, check_groups, locate_head
from outrider.models.head_config import HeadConfig
from outrider.training.head_lesson import HeadLesson
from outrider.training.lesson import Lesson
from outrider.training.recorder import Recording
from outrider.training.student_lesson import StudentLesson
from outrider.training.student_net import StudentConfig
from outrider.training.teacher import Teacher, frequent_tokens

VOCAB = 8192  # tokens that a head can say


class Kind(Protocol):
    """A kind of draft for a target."""

    @property
    def shape(self) -> str:
        """What tells it from others of its kind; the name of a folder."""

    @property
    def state_layers(self) -> tuple[int, ...]:
        """The layers after which states are recorded, the target's last among them."""

    def lesson(self, recordings: Sequence[Recording], device: torch.device) -> Lesson: ...


@dataclass(frozen=True)
class StudentKind:
    """A small model of its own."""

    target: Checkpoint
    shape = "student"

    @property
    def state_layers(self) -> tuple[int, ...]:
        return (self.target.config.num_layers,)

    def lesson(self, recordings: Sequence[Recording], device: torch.device) -> StudentLesson:
        config = StudentConfig.for_target(self.target.config)
        return StudentLesson(config, Teacher.of(self.target), self.target.tokenizer(), device=device)


@dataclass(frozen=True)
class HeadKind:
    """An EAGLE-3 head of a shape. start: the head it goes on from; None: it begins at the target's last
    layer. quantized: it is stored in 4 bits."""

    target: Checkpoint
    config: HeadConfig
    start: HeadCheckpoint | None
    quantized: bool

    @classmethod
    def of(
        cls,
        target: Checkpoint,
        name: str,
        *,
        start: str | None,
        draft_vocab_size: int | None,
        layers: int | None,
        state_layers: tuple[int, ...],
        quantized: bool,
    ) -> HeadKind:
        """name: the target's. Raises ModelError for a start that was made for another target or has what is
        not trained, and for a shape that cannot be stored in 4 bits; ConfigError for another draft
        vocabulary, number of layers or state layers than the start's, and for more of them than the target
        has."""
        head = None if start is None else HeadCheckpoint(locate_head(start))
        if head is None:
            config = HeadConfig.for_target(
                target.config,
                draft_vocab_size=draft_vocab_size or VOCAB,
                layers=layers or 1,
                state_layers=tuple(sorted(state_layers)),
            )
        else:
            config = replace(head.config, state_layers=head.layers(target.config, name))
            _refuse_untaught(head)
        for option, asked, has in (
            ("draft_vocab_size", draft_vocab_size, config.draft_vocab_size),
            ("layers", layers, config.sizes.layers),
            ("state_layers", tuple(sorted(state_layers)) or None, config.state_layers),
        ):
            if head is not None and asked not in (None, has):
                raise ConfigError(
                    f"{option} = {asked}, and start = {start!r} has {has}; leave it out to go on with those"
                )
        if head is None and draft_vocab_size not in (None, config.draft_vocab_size):
            raise ConfigError(
                f"draft_vocab_size = {draft_vocab_size}, and {name!r} has {config.draft_vocab_size} tokens; "
                "give no more than those"
            )
        if config.sizes.layers > target.config.num_layers:
            raise ConfigError(
                f"layers = {layers}, and a head begins as the last layers of {name!r}, which has "
                f"{target.config.num_layers}; give no more than those"
            )
        if (config.state_layers or (0,))[-1] > target.config.num_layers:
            raise ConfigError(
                f"state_layers = {state_layers}, and {name!r} has {target.config.num_layers} layers; give "
                "none beyond"
            )
        if quantized:
            check_groups(config)
        return cls(target, config, head, quantized)

    @property
    def shape(self) -> str:
        return f"{self.config.sizes.layers}-layers-{self.config.draft_vocab_size}-tokens"

    @property
    def state_layers(self) -> tuple[int, ...]:
        return tuple(sorted({*(self.config.state_layers or ()), self.target.config.num_layers}))

    def lesson(self, recordings: Sequence[Recording], device: torch.device) -> HeadLesson:
        return HeadLesson(
            self.config,
            Teacher.of(self.target, self.config.sizes.layers),
            self._tokens(recordings),
            start=self.start,
            quantized=self.quantized,
            device=device,
        )

    def _tokens(self, recordings: Sequence[Recording]) -> torch.Tensor:
        if self.start is not None:
            return torch.from_numpy(self.start.targets())
        vocab, count = self.target.config.vocab_size, self.config.draft_vocab_size
        return frequent_tokens(recordings, vocab=vocab, count=count)


def _refuse_untaught(head: HeadCheckpoint) -> None:
    """Raises ModelError for what `outrider.training.net.HeadNet` does not compute, and would train away."""
    config, parts = head.config, head.parts
    untaught = {
        "norm_before_residual": config.norm_before_residual,
        "norm_before_fc": config.norm_before_fc,
        "fc_norm": config.fc_norm,
        "norm_output": config.norm_output,
        "use_aux_hidden_state = false": config.reads_output,
        "mlp_bias": config.mlp_bias,
        "sliding_window": any(config.windows),
        "norms of queries and keys": config.head_norms,
        "heads of which a part turns": 2 * len(config.rope.inv_freq) < config.sizes.head_dim,
        "an embedding table of its own": parts.table is not None,
        "no output layer of its own": parts.output is None,
    }
    found = [name for name, there in untaught.items() if there]
    if found:
        raise ModelError(f"start = {str(head.path)!r} has {', '.join(found)}, which training does not know")
