"""What the target says, from its recorded states: the distributions that a draft learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.models.checkpoint import Checkpoint
from outrider.training.recorder import Recording

MATRICES = (
    *(f"self_attn.{name}_proj" for name in "qkvo"),
    *(f"mlp.{name}_proj" for name in ("gate", "up", "down")),
)
NORMS = {"hidden_norm": "input_layernorm", "post_attention_layernorm": "post_attention_layernorm"}


@dataclass(frozen=True)
class Teacher:
    """The target beside its layers: embeddings and output rows [vocab, hidden], its last norm [hidden].

    last_layer: the weights of its last layer, by the names of a head's layer.
    """

    embedding: Tensor
    output: Tensor
    norm: Tensor
    eps: float
    last_layer: Mapping[str, Tensor]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Teacher:
        def rows(name: str) -> Tensor:
            return checkpoint.weight(name).dequantize()

        embedding = rows("model.embed_tokens.weight")
        output = embedding if checkpoint.config.tie_word_embeddings else rows("lm_head.weight")
        norm = checkpoint.tensor("model.norm.weight").float()
        layer = f"model.layers.{checkpoint.config.num_layers - 1}"
        last_layer = {name: rows(f"{layer}.{name}.weight") for name in MATRICES}
        for name, of_target in NORMS.items():
            last_layer[name] = checkpoint.tensor(f"{layer}.{of_target}.weight").float()
        return cls(embedding, output, norm, checkpoint.config.rms_norm_eps, last_layer)

    def to(self, device: torch.device) -> Teacher:
        """The same on another device; the last layer, which is read once, stays."""
        return replace(
            self,
            embedding=self.embedding.to(device),
            output=self.output.to(device),
            norm=self.norm.to(device),
        )

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
