"""What the target says, from its recorded states: the distributions that a draft learns from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.models import tensors
from outrider.models.checkpoint import Checkpoint
from outrider.models.leaves import Tied
from outrider.models.parts import Attention, Block, Gated
from outrider.training.recorder import Recording


@dataclass(frozen=True)
class Teacher:
    """The target beside its layers: embeddings and output rows [vocab, hidden], its last norm [hidden].

    logit_scale, logit_cap: as in `outrider.models.parts.Decoder`. last_layers: of its last layers the weights
    that mean the same in a head's layer, by their names there.
    """

    embedding: Tensor
    output: Tensor
    norm: Tensor
    eps: float
    logit_scale: float
    logit_cap: float | None
    last_layers: tuple[Mapping[str, Tensor], ...]

    @classmethod
    def of(cls, checkpoint: Checkpoint, layers: int = 1) -> Teacher:
        """layers: how many of the last are read."""
        tree = checkpoint.config.tree
        embedding = matrix(checkpoint, tree.table.tensor)
        return cls(
            embedding=embedding,
            output=embedding
            if isinstance(tree.output, Tied)
            else matrix(checkpoint, tree.output.matrices[0]),
            norm=vector(checkpoint, tree.norm.weight.tensor),
            eps=tree.norm.eps,
            logit_scale=tree.logit_scale,
            logit_cap=tree.logit_cap,
            last_layers=tuple(_layer(checkpoint, block) for block in tree.blocks[-layers:]),
        )

    def to(self, device: torch.device) -> Teacher:
        """The same on another device; the last layers, which are read once, stay."""
        return replace(
            self,
            embedding=self.embedding.to(device),
            output=self.output.to(device),
            norm=self.norm.to(device),
        )

    def logits(self, last: Tensor, output: Tensor) -> Tensor:
        """The logits of some output rows [tokens, hidden]. last: [..., hidden], what the last layer left."""
        normed = F.rms_norm(last.float(), self.norm.shape, self.norm, self.eps)
        logits = F.linear(normed * self.logit_scale, output)
        return logits if self.logit_cap is None else self.logit_cap * torch.tanh(logits / self.logit_cap)


def _layer(checkpoint: Checkpoint, block: Block) -> dict[str, Tensor]:
    """What of a layer means the same in a head's, which has no norms but one before each part, and whose
    rotation turns all dimensions, one half against the other."""
    attention, feed_forward = block.attention, block.feed_forward
    found: dict[str, Tensor] = {}
    if isinstance(mixer := attention.mixer, Attention) and mixer.gate is None and mixer.shape.kv == "own":
        shape, rope = mixer.shape, mixer.shape.rope
        plain = mixer.q_norm is None and mixer.k_norm is None
        turns = rope is not None and not rope.interleaved and 2 * len(rope.inv_freq) == shape.head_dim
        scores = {"q": shape.scale * shape.head_dim**0.5, "k": 1.0} if plain and turns else {}
        factors = scores if shape.values_normed else {**scores, "v": 1.0}
        for kind, tensors_of, read in (
            ("weight", mixer.qkv.matrices, matrix),
            ("bias", mixer.qkv.biases, vector),
        ):
            for name, tensor in zip("qkv", tensors_of, strict=False):
                if (factor := factors.get(name)) is not None:
                    found[f"self_attn.{name}_proj.{kind}"] = read(checkpoint, tensor) * factor
        if attention.after is None:
            found["self_attn.o_proj.weight"] = matrix(checkpoint, mixer.out.matrices[0]) * attention.scale
            for tensor in mixer.out.biases:
                found["self_attn.o_proj.bias"] = vector(checkpoint, tensor) * attention.scale
    if isinstance(mixer := feed_forward.mixer, Gated):
        found["mlp.gate_proj.weight"] = matrix(checkpoint, mixer.gate.matrices[0])
        found["mlp.up_proj.weight"] = matrix(checkpoint, mixer.up.matrices[0])
        if feed_forward.after is None:
            found["mlp.down_proj.weight"] = matrix(checkpoint, mixer.down.matrices[0]) * feed_forward.scale
    norms = {"input_layernorm": attention.before, "post_attention_layernorm": feed_forward.before}
    for name, norm in norms.items():
        if norm is not None:
            found[f"{name}.weight"] = vector(checkpoint, norm.weight.tensor)
    return found


def matrix(checkpoint: Checkpoint, tensor: tensors.Tensor) -> Tensor:
    """float32 [out, in]."""
    return torch.from_numpy(checkpoint.weight(tensor).dequantize())


def vector(checkpoint: Checkpoint, tensor: tensors.Tensor) -> Tensor:
    """float32 [size]."""
    return torch.from_numpy(checkpoint.floats(tensor))


def frequent_tokens(recordings: Sequence[Recording], *, vocab: int, count: int) -> Tensor:
    """The `count` tokens that the target says most often, ascending; int64."""
    seen = torch.zeros(vocab, dtype=torch.int64)
    for recording in recordings:
        seen += torch.bincount(torch.tensor(recording.tokens[recording.own :]), minlength=vocab)
        # What it reads it may well repeat, but less often than it says what it says.
        seen += torch.bincount(torch.tensor(recording.tokens), minlength=vocab)
    return seen.topk(count).indices.sort().values
