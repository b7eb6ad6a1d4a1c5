"""What the target says, from its recorded states: the distributions that a draft learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.models.checkpoint import Checkpoint
from outrider.training.recorder import Recording


@dataclass(frozen=True)
class Teacher:
    """The target beside its layers: embeddings and output rows [vocab, hidden], its last norm [hidden]."""

    embedding: Tensor
    output: Tensor
    norm: Tensor
    eps: float

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Teacher:
        def rows(name: str) -> Tensor:
            return checkpoint.weight(name).dequantize()

        embedding = rows("model.embed_tokens.weight")
        output = embedding if checkpoint.config.tie_word_embeddings else rows("lm_head.weight")
        return cls(
            embedding, output, checkpoint.tensor("model.norm.weight").float(), checkpoint.config.rms_norm_eps
        )

    def to(self, device: torch.device) -> Teacher:
        return Teacher(self.embedding.to(device), self.output.to(device), self.norm.to(device), self.eps)

    def normed(self, last: Tensor) -> Tensor:
        """What the output layer gets. last: [..., hidden], what the last layer left."""
        return F.rms_norm(last.float(), self.norm.shape, self.norm, self.eps)


def frequent_tokens(recordings: Sequence[Recording], *, vocab: int, count: int) -> Tensor:
    """The `count` tokens that the target says most often, ascending; int64."""
    seen = torch.zeros(vocab, dtype=torch.int64)
    for recording in recordings:
        seen += torch.bincount(torch.tensor(recording.tokens[recording.own :]), minlength=vocab)
        # What it reads it may well repeat, but less often than it says what it says.
        seen += torch.bincount(torch.tensor(recording.tokens), minlength=vocab)
    return seen.topk(count).indices.sort().values
