"""A head learns what the target says two tokens on, from the target's states and from its own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from outrider.models import head_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, quantized, save_head
from outrider.models.head_config import HeadConfig
from outrider.training.batches import TrainingBatch
from outrider.training.lesson import DEPTH, JUDGED, Where, judged, positions
from outrider.training.loss import distance
from outrider.training.net import HeadNet
from outrider.training.rounding import in_4_bits, in_bfloat16, rounded
from outrider.training.teacher import Teacher

logger = logging.getLogger(__name__)

OF_PROMPTS = 0.15
"""Weight of a position that is not of the target's own words."""
REACH = 0.9
"""Of a step's weight, the part that goes by the chance that a draft gets there."""


class HeadLesson:
    """Cross-entropy against the target's distribution over the head's tokens, in every unrolled step.

    At every position, the prompt's too: that teaches less than an answer does, but its states are there, and
    new text is what a head lacks. The weights of steps go by how often a draft gets there.
    """

    def __init__(
        self,
        config: HeadConfig,
        teacher: Teacher,
        draft_tokens: Tensor,
        *,
        start: HeadCheckpoint | None = None,
        quantized: bool = False,
        device: torch.device,
    ) -> None:
        """draft_tokens: int64 [draft vocab], the target's tokens that the head can say, ascending.

        start: a head of this configuration and these tokens to go on from; None: begin at the target.
        quantized: matrices are saved in 4 bits.
        """
        self.config, self._quantized = config, quantized
        self.draft_tokens = draft_tokens.to(device)
        self._teacher = teacher.to(device)
        self._output = self._teacher.output[self.draft_tokens]
        self.net = HeadNet(config)
        with torch.no_grad():
            self._begin_at_target() if start is None else self._go_on_from(start)
        self.net.to(device)

    def matrices(self) -> list[nn.Parameter]:
        return self.net.matrices()

    def loss(self, batch: TrainingBatch, unrolled: int) -> Tensor:
        """A position of the answer counts 1, one of the prompt, which its states make worth the while,
        `OF_PROMPTS`; a step's share, as its draft is likelier to get there."""
        weight = torch.where(batch.own, 1.0, OF_PROMPTS)
        sequences, at = where = positions(batch.real, 1)
        row = torch.zeros_like(batch.tokens)
        row[where] = torch.arange(len(at), device=at.device)
        with torch.no_grad():
            probs = self._of_target(batch, where, self._output).softmax(-1, dtype=torch.float32)
        reach, total = torch.ones_like(weight), weight.new_zeros(())  # reach: of the draft of each root
        for step, states in enumerate(self._unrolled(batch, unrolled)):
            sequences, at = positions(batch.real, 1 + step)
            roots = sequences, at - 1 - step
            loss, overlap = distance(
                self.net.lm_head(states[roots]),
                probs[row[sequences, at]],
                weight[sequences, at] * ((1 - REACH) + REACH * reach[roots]),
            )
            total = total + loss
            reach[roots] *= overlap
        return total / weight[where].sum()

    def agreement(self, batch: TrainingBatch, temperature: float) -> tuple[Tensor, Tensor]:
        sequences, at = positions(batch.own, DEPTH)
        found = batch.own.new_full((2, DEPTH, *batch.own.shape), -1, dtype=torch.float32)
        states = list(self._unrolled(batch, DEPTH))
        for some, there in zip(torch.split(sequences, JUDGED), torch.split(at, JUDGED), strict=True):
            roots = [there - 1 - step for step in range(DEPTH)]
            drafted = [self.net.lm_head(each[some, root]) for each, root in zip(states, roots, strict=True)]
            target = self._of_target(batch, (some, there), self._teacher.output)
            marks = judged(target, torch.stack(drafted), self.draft_tokens, temperature)
            for step, root in enumerate(roots):
                found[:, step, some, root] = marks[:, step]
        greedy, sampled = found.flatten(2)
        whole = (greedy >= 0).all(0)
        return greedy[:, whole], sampled[:, whole]

    def as_saved(self) -> AbstractContextManager[None]:
        return rounded(self.net, in_4_bits if self._quantized else in_bfloat16)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The head as it is saved, by public names: `outrider.models.head_checkpoint.save_head`."""
        with self.as_saved():
            state = {name: values.cpu().numpy() for name, values in self.net.state_dict().items()}
        return dict[str, NDArray[Any]]((quantized if self._quantized else head_checkpoint.in_bfloat16)(state))

    def save(self, folder: Path) -> None:
        save_head(folder, self.config, self.tensors(), self.draft_tokens.cpu().numpy())

    def _begin_at_target(self) -> None:
        """Begin as what the target does last: its last layers, as many as the head has, after the latest of
        the states that it reads, then its output layer. This saves more than half of the training."""
        self.net.lm_head.weight.copy_(self._output * self._teacher.logit_scale)
        self.net.norm.weight.copy_(self._teacher.norm)
        rest: list[str] = []
        for number, values in enumerate(self._teacher.last_layers):
            rest += self._begin_layer(number, values)
        if rest:
            logger.warning(
                "the target's last layer is not computed as a head's, so these begin at random: %s",
                ", ".join(rest),
            )
        hidden = self.config.target_hidden_size
        self.net.fc.weight.zero_()
        self.net.fc.weight[:, -hidden:] = torch.eye(hidden)

    def _begin_layer(self, number: int, weights: Mapping[str, Tensor]) -> list[str]:
        """Names of the matrices of this layer for which there are no weights."""
        layer = self.net.layers[str(number)] if number else self.net.midlayer
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()  # which the target need not have
        scope = f"layers.{number}." if number else ""
        for name, values in weights.items():
            # In the first layer the state has a norm of its own, and matrices read [embedding, state].
            own = name.replace("input_layernorm", "hidden_norm") if not number else name
            parameter = layer.get_parameter(own)
            parameter[..., parameter.shape[-1] - values.shape[-1] :] = values
        matrices = (name for name, values in layer.named_parameters() if values.dim() == 2)
        return [scope + name for name in matrices if name not in weights]

    def _go_on_from(self, start: HeadCheckpoint) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.copy_(torch.from_numpy(start.stored[name].floats()))

    def _of_target(self, batch: TrainingBatch, where: Where, output: Tensor) -> Tensor:
        """The target's logits there, of some output rows."""
        return self._teacher.logits(batch.states[where][:, -self.config.target_hidden_size :], output)

    def _unrolled(self, batch: TrainingBatch, steps: int) -> Iterator[Tensor]:
        """What the output layer reads [batch, roots, hidden], one step after the other."""
        roots = batch.tokens.shape[1] - 1
        features = batch.states[:, :roots, : self.config.width]
        following = F.pad(batch.tokens[:, 1:], (0, steps - 1))
        mask = torch.full((roots, roots), -torch.inf, device=following.device).triu(1)
        embedded = F.embedding(following, self._teacher.embedding)
        return self.net.unroll(features, embedded, mask, steps)
