"""A student: a small model of the target's vocabulary that learns the target's distributions."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from outrider.models.tokenizer import Tokenizer
from outrider.training.batches import TrainingBatch
from outrider.training.lesson import DEPTH, Where, positions, rounded
from outrider.training.loss import soft_cross_entropy
from outrider.training.student_net import StudentConfig, StudentNet
from outrider.training.teacher import Teacher


class StudentLesson:
    """Cross-entropy against the target's distribution over all tokens."""

    def __init__(
        self, config: StudentConfig, teacher: Teacher, tokenizer: Tokenizer, *, device: torch.device
    ) -> None:
        self._teacher = teacher.to(device)
        self._tokenizer = tokenizer
        self._config = config
        self.net = StudentNet(config).to(device)

    def losses(self, batch: TrainingBatch, unrolled: int) -> list[Tensor]:
        where = positions(batch.real, 0)
        with torch.no_grad():
            probs = self._target_logits(batch, where).softmax(-1, dtype=torch.float32)
        return [soft_cross_entropy(self._logits(batch)[where], probs)]

    def hits(self, batch: TrainingBatch) -> Tensor:
        where = positions(batch.own, 0)
        best = self._target_logits(batch, where).argmax(-1)
        agrees = batch.own.new_full((*batch.own.shape,), -1, dtype=torch.float32)
        agrees[where] = (self._logits(batch)[where].argmax(-1) == best).float()
        in_a_row = F.pad(agrees, (0, DEPTH - 1), value=-1).unfold(1, DEPTH, 1).flatten(0, 1).T
        return in_a_row[:, (in_a_row >= 0).all(0)]

    def as_saved(self) -> AbstractContextManager[None]:
        return rounded(self.net, lambda values: values.bfloat16().float())

    def save(self, folder: Path) -> None:
        """A folder that runs in any engine; its weights are quantised where it is loaded."""
        folder.mkdir(parents=True, exist_ok=True)
        state = {name: values.bfloat16().cpu().contiguous() for name, values in self.net.state_dict().items()}
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        (folder / "config.json").write_text(json.dumps(self._config.as_json(), indent=2) + "\n")
        self._tokenizer.save(folder)

    def _logits(self, batch: TrainingBatch) -> Tensor:
        logits: Tensor = self.net(batch.tokens)
        return logits

    def _target_logits(self, batch: TrainingBatch, where: Where) -> Tensor:
        hidden = len(self._teacher.norm)
        return self._teacher.logits(batch.states[where][:, -hidden:], self._teacher.output)
