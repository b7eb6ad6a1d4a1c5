"""A student: a small model of the target's vocabulary that learns the target's distributions."""

from __future__ import annotations

from contextlib import AbstractContextManager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from outrider.models.config import ModelConfig
from outrider.training.batches import Batch
from outrider.training.lesson import DEPTH, Where, positions, rounded
from outrider.training.loss import soft_cross_entropy
from outrider.training.teacher import Teacher

LAYERS, SHARE = 3, 3  # layers of a student, and how many times narrower than its target it is
HEAD_DIM = 32


def student_config(target: ModelConfig) -> LlamaConfig:
    """A plain Llama of a few narrow layers, with the target's vocabulary and context."""
    heads = max(1, round(target.hidden_size / SHARE / HEAD_DIM))
    hidden = heads * HEAD_DIM
    return LlamaConfig(
        vocab_size=target.vocab_size,
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 32 * 32 or 32,
        num_hidden_layers=LAYERS,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=HEAD_DIM,
        max_position_embeddings=target.max_position_embeddings,
        rms_norm_eps=target.tree.norm.eps,
        tie_word_embeddings=True,
        eos_token_id=list(target.eos_token_ids),
        architectures=["LlamaForCausalLM"],
    )


class StudentLesson:
    """Cross-entropy against the target's distribution over all tokens."""

    def __init__(
        self, config: LlamaConfig, teacher: Teacher, tokenizer: Any, *, device: torch.device
    ) -> None:
        self._teacher = teacher.to(device)
        self._tokenizer = tokenizer
        self.net = LlamaForCausalLM(config).to(device)

    def losses(self, batch: Batch, unrolled: int) -> list[Tensor]:
        where = positions(batch.real, 0)
        with torch.no_grad():
            probs = self._target_logits(batch, where).softmax(-1, dtype=torch.float32)
        return [soft_cross_entropy(self._logits(batch)[where], probs)]

    def hits(self, batch: Batch) -> Tensor:
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
        deepcopy(self.net).bfloat16().save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)

    def _logits(self, batch: Batch) -> Tensor:
        logits: Tensor = self.net(input_ids=batch.tokens, use_cache=False).logits
        return logits

    def _target_logits(self, batch: Batch, where: Where) -> Tensor:
        hidden = len(self._teacher.norm)
        return self._teacher.logits(batch.states[where][:, -hidden:], self._teacher.output)
