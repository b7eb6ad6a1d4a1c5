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
from torch import Tensor

from outrider.models.head_checkpoint import HeadCheckpoint, four_bits, in_bfloat16, quantized, save_head
from outrider.models.head_config import HeadConfig
from outrider.training.batches import TrainingBatch
from outrider.training.lesson import DEPTH, Where, positions, rounded
from outrider.training.loss import soft_cross_entropy
from outrider.training.net import HeadNet
from outrider.training.teacher import Teacher

logger = logging.getLogger(__name__)


class HeadLesson:
    """Cross-entropy against the target's distribution over the head's tokens, in every unrolled step.

    At every position, the prompt's too: that teaches less than an answer does, but its states are there, and
    new text is what a head lacks.
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

    def losses(self, batch: TrainingBatch, unrolled: int) -> list[Tensor]:
        where = positions(batch.real, unrolled)  # no root stands as far before
        with torch.no_grad():
            probs = self._of_target(batch, where, self._output).softmax(-1, dtype=torch.float32)
        return [soft_cross_entropy(logits, probs) for logits in self._logits(batch, where, unrolled)]

    def hits(self, batch: TrainingBatch) -> Tensor:
        sequences, at = where = positions(batch.own, DEPTH)
        best = self._of_target(batch, where, self._teacher.output).argmax(-1)
        agrees = batch.own.new_full((DEPTH, *batch.own.shape), -1, dtype=torch.float32)
        for step, logits in enumerate(self._logits(batch, where, DEPTH)):
            hit = self.draft_tokens[logits.argmax(-1)] == best
            agrees[step, sequences, at - 1 - step] = hit.float()
        agrees = agrees.flatten(1)
        return agrees[:, (agrees >= 0).all(0)]

    def as_saved(self) -> AbstractContextManager[None]:
        return rounded(self.net, self._stored)

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The head as it is saved, by public names: `outrider.models.head_checkpoint.save_head`."""
        state = {name: tensor.detach().cpu().numpy() for name, tensor in self.net.state_dict().items()}
        return quantized(state) if self._quantized else dict[str, NDArray[Any]](in_bfloat16(state))

    def save(self, folder: Path) -> None:
        save_head(folder, self.config, self.tensors(), self.draft_tokens.cpu().numpy())

    def _stored(self, values: Tensor) -> Tensor:
        if not self._quantized:
            return values.bfloat16().float()
        if values.dim() != 2:
            return values.half().float()
        return torch.from_numpy(four_bits(values.detach().cpu().numpy()).dequantize()).to(values.device)

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
        scope = f"layers.{number}." if number else ""
        for name, values in weights.items():
            # In the first layer the state has a norm of its own, and matrices read [embedding, state].
            own = "hidden_norm" if name == "input_layernorm" and not number else name
            weight = layer.get_parameter(f"{own}.weight")
            weight[..., weight.shape[-1] - values.shape[-1] :] = values
        matrices = (name for name, values in layer.named_parameters() if values.dim() == 2)
        return [scope + name for name in matrices if name.removesuffix(".weight") not in weights]

    def _go_on_from(self, start: HeadCheckpoint) -> None:
        for name, parameter in self.net.named_parameters():
            parameter.copy_(torch.from_numpy(start.stored[name].floats()))

    def _of_target(self, batch: TrainingBatch, where: Where, output: Tensor) -> Tensor:
        """The target's logits there, of some output rows."""
        return self._teacher.logits(batch.states[where][:, -self.config.target_hidden_size :], output)

    def _logits(self, batch: TrainingBatch, where: Where, steps: int) -> Iterator[Tensor]:
        """The head's logits [rows of `where`, draft vocab], one step after the other."""
        sequences, at = where
        roots = batch.tokens.shape[1] - 1
        features = batch.states[:, :roots, : self.config.width]
        following = F.pad(batch.tokens[:, 1:], (0, steps - 1))
        mask = torch.full((roots, roots), -torch.inf, device=following.device).triu(1)
        embedded = F.embedding(following, self._teacher.embedding)
        for step, state in enumerate(self.net.unroll(features, embedded, mask, steps)):
            yield self.net.lm_head(state[sequences, at - 1 - step])
