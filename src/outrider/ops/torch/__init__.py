"""Readable PyTorch, on any device: the oracle that faster backends are tested against."""

from outrider.ops.torch.backend import TorchBackend
from outrider.ops.torch.ops import TorchOps

__all__ = ["TorchBackend", "TorchOps"]
