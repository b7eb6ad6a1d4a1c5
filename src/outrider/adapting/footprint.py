"""What learning takes, in both processes."""

from __future__ import annotations

from math import prod

from outrider.adapting.settings import ROWS, AdaptConfig
from outrider.config import EngineConfig
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, is_head, locate_head
from outrider.models.leaves import tensors

PYTORCH = 480 * 2**20
"""The training process before it has read anything: Python, PyTorch, and what its threads take."""
PARAMETER = 40
"""Bytes for each number of the head in training: exact, rounded, its gradient, the optimizer's two, the
version that drafts, the one before it, and the copy in 16 bits that passes compute with."""
ROW = 32
"""Bytes for each position of a batch and each token that the head can say, in the passes of all steps."""


def learning_bytes(config: EngineConfig, adapt: AdaptConfig) -> int:
    """Resident bytes of the training process, and of what the server keeps for it; 0 without a head."""
    drafters = () if config.speculative is None else config.speculative.drafters
    paths = (locate_head(drafter.model) for drafter in drafters if drafter.model is not None)
    head = next((HeadCheckpoint(path) for path in paths if is_head(path)), None)
    if head is None:
        return 0  # which is refused
    tree = open_checkpoint(config.model, revision=config.revision).config.tree
    matrices = 4 * tree.vocab_size * tree.hidden_size * (1 if tree.tied else 2)
    said = head.config.draft_vocab_size
    parameters = sum(prod(tensor.shape) for tensor in tensors(head.parts))
    teacher = matrices + 4 * said * tree.hidden_size
    passes = ROWS * (ROW * said + 6 * tree.vocab_size)
    versions = 4 * parameters  # two that are packed, and one that comes
    return PYTORCH + adapt.memory + teacher + PARAMETER * parameters + passes + versions
