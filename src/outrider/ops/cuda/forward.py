"""A definition that runs on the GPU: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.base import Cache, Definition, Passed
from outrider.ops.choice import Choice, Stepped
from outrider.ops.cuda.choose import RowDraw, choose
from outrider.ops.cuda.layout import GpuBatch
from outrider.ops.cuda.ops import GpuOps
from outrider.ops.shapes import Rope
from outrider.ops.span import Span
from outrider.ops.torch.choose import TorchRows, edited


class GpuForward:
    """See `outrider.ops.base.Forward`. What is kept is a tensor, float32."""

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        frequencies: Callable[[Rope | None], Tensor],
        definition: Definition,
        cache: Sequence[Cache],
        block_size: int,
    ) -> None:
        self.device = device
        self._dtype = dtype
        self._frequencies = frequencies
        self._definition = definition
        self._cache = cache
        self._block_size = block_size

    @torch.inference_mode()
    def run(
        self, spans: Sequence[Span], input: Any = None, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits, float32 [sum of logit_rows, vocab], and what is kept, float32 [rows, sum of widths], on the
        device, where nobody has waited for them. tokens: int32 [rows], in place of the spans'."""
        batch = GpuBatch.of(spans, self._block_size, self.device, tokens)
        given = None if input is None else torch.as_tensor(input).to(self.device, torch.float32)
        ops = GpuOps(batch, self._dtype, self._frequencies, given)
        logits: Tensor = self._definition(ops, self._cache)
        kept = torch.cat(ops.kept, dim=-1).float() if ops.kept else None
        return logits[: batch.logit_rows].float(), kept

    def __call__(self, spans: Sequence[Span], input: Any = None) -> Passed:
        logits, kept = self.run(spans, input)
        return Passed(logits.cpu().numpy(), kept)

    def move(self, tables: Sequence[Sequence[int]], places: Sequence[int], to: int) -> None:
        size = self._block_size
        for layer in self._cache:
            if isinstance(layer, LayerCache):
                table = tables[layer.group]
                old, new = (
                    torch.tensor([table[at // size] * size + at % size for at in of], device=self.device)
                    for of in (places, range(to, to + len(places)))
                )
                for values in (layer.keys, layer.values):
                    values[new] = values[old]

    @torch.inference_mode()
    def step(
        self,
        spans: Sequence[Span],
        choices: Sequence[Choice | None],
        input: Any = None,
        *,
        looks: bool = False,
    ) -> Stepped:
        logits, kept = self.run(spans, input)
        ends = [*accumulate((span.logit_rows for span in spans), initial=0)]
        asked, changed = list[RowDraw](), list[Tensor]()
        for first, choice in zip(ends, choices, strict=False):
            if choice is None:
                continue
            at = first + choice.skip
            if choice.edits:
                changed.append(edited(logits[first:], choice))
                at = len(logits) + sum(len(rows) for rows in changed[:-1])
            asked += RowDraw.of(choice, at)
        chosen = iter(
            choose(torch.cat([logits, *changed]) if changed else logits, asked).tolist() if asked else ()
        )
        tokens = [[next(chosen) for _ in range(choice.rows if choice else 0)] for choice in choices]
        if not looks:
            return Stepped(tokens, None, kept)
        of_span = zip(pairwise(ends), choices, strict=True)
        return Stepped(
            tokens, [TorchRows(logits[first:last], choice) for (first, last), choice in of_span], kept
        )
