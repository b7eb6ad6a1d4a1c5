"""Embeddings: one vector for a text, made of the target's last hidden states."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from outrider.cache.pool import OutOfBlocks
from outrider.cache.table import BlockTable
from outrider.engine.admission import checked_tokens
from outrider.errors import ConfigError, OutriderError, RequestError
from outrider.formats.format import Floats
from outrider.models.pooling import Pooling
from outrider.models.runner import ModelRunner
from outrider.ops.base import Forward
from outrider.ops.span import Span


class CacheInUse(OutriderError):
    """Requests have so much of the cache that a text cannot be read for now."""


class Embedder:
    """Reads texts with the target, in blocks of its cache that are given back.

    pooling: None for a model that is not meant for embeddings; rows: of a text in one pass; max_model_len: a
    text has fewer tokens.
    """

    def __init__(
        self, target: ModelRunner, pooling: Pooling | None, *, rows: int, max_model_len: int
    ) -> None:
        self._target = target
        self._pooling = pooling
        self._rows = rows
        self._max_model_len = max_model_len

    @property
    def size(self) -> int:
        """Numbers of an embedding."""
        return self._target.model.config.tree.hidden_size

    def embed(self, tokens: Sequence[int]) -> Floats:
        """The embedding of a text, float32 [size], of length 1.

        Called between two steps. Raises ConfigError for a model that is not meant for this, RequestError for
        tokens that cannot be read, and CacheInUse.
        """
        if self._pooling is None:
            raise ConfigError(
                "the model is not meant for embeddings; to have some anyway, load it with pooling = 'mean' "
                "or 'last' (--pooling)",
                "model",
            )
        tokens = checked_tokens(tokens, self._max_model_len, self._target.model.config.vocab_size)
        table = self._target.table()
        try:
            pooled = self._pooled(tokens, table)
        except OutOfBlocks:
            raise CacheInUse("the text does not fit into what requests leave of the cache") from None
        finally:
            table.truncate(0)
        length = float(np.linalg.norm(pooled))
        if not 0 < length < np.inf:
            raise RequestError("the states of this text are not finite; the model's weights are broken")
        return (pooled / length).astype(np.float32)

    def _pooled(self, tokens: Sequence[int], table: BlockTable) -> NDArray[np.float64]:
        mean, total = self._pooling == "mean", np.zeros(self.size)
        for first in range(0, len(tokens), self._rows):
            part = tokens[first : first + self._rows]
            end = first + len(part)
            table.extend(end)
            wanted = len(part) if mean else int(end == len(tokens))
            span = Span(part, first, table.tables, wanted, table.states)
            total += np.asarray(self._forward([span]).logits, np.float64).sum(axis=0)
            table.settle(end)
        return total

    @cached_property
    def _forward(self) -> Forward:
        return self._target.compile(self._target.model.hidden)
