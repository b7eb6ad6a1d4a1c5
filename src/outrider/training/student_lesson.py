"""A student: a small model of the target's vocabulary that learns the target's distributions."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from outrider.models.tokenizer import Tokenizer
from outrider.training.batches import TrainingBatch
from outrider.training.lesson import DEPTH, JUDGED, Where, judged, positions
from outrider.training.loss import distance
from outrider.training.rounding import in_bfloat16, rounded
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

    def matrices(self) -> list[nn.Parameter]:
        return self.net.matrices()

    def loss(self, batch: TrainingBatch, unrolled: int) -> Tensor:
        where = positions(batch.real, 0)
        with torch.no_grad():
            probs = self._target_logits(batch, where).softmax(-1, dtype=torch.float32)
        logits = self._logits(batch)[where]
        return distance(logits, probs, probs.new_full((len(probs),), 1 / len(probs)))[0]

    def agreement(self, batch: TrainingBatch, temperature: float) -> tuple[Tensor, Tensor]:
        sequences, at = positions(batch.own, 0)
        logits, every = self._logits(batch), torch.arange(len(self._teacher.output), device=at.device)
        found = batch.own.new_full((2, *batch.own.shape), -1, dtype=torch.float32)
        for where in zip(torch.split(sequences, JUDGED), torch.split(at, JUDGED), strict=True):
            target = self._target_logits(batch, where)
            found[:, *where] = judged(target, logits[where][None], every, temperature)[:, 0]
        in_a_row = F.pad(found, (0, DEPTH - 1), value=-1).unfold(2, DEPTH, 1).flatten(1, 2).mT
        whole = (in_a_row[0] >= 0).all(0)
        return in_a_row[0][:, whole], in_a_row[1][:, whole]

    def as_saved(self) -> AbstractContextManager[None]:
        return rounded(self.net, in_bfloat16)

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
