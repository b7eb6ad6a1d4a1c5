"""A definition that runs on the GPU: tokens in, tokens out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from outrider.cache.store import LayerCache
from outrider.ops.base import Cache, Definition, Passed
from outrider.ops.choice import Choice, Stepped
from outrider.ops.cuda.choose import Choosing, Draws, RowDraw, edited
from outrider.ops.cuda.device import computing_on, upload
from outrider.ops.cuda.graphs import Graphs
from outrider.ops.cuda.layout import RowLayout
from outrider.ops.cuda.ops import GpuOps
from outrider.ops.shapes import Rope
from outrider.ops.span import Span
from outrider.ops.torch.choose import TorchRows

MOST_ROWS = 256  # of a pass that is recorded; a larger one is long enough to hide its launches


class GpuForward:
    """See `outrider.ops.base.Forward`. What is kept is a tensor, float32.

    Passes are recorded by the sizes of their arrays (`graphs`), and with them the choice of tokens.
    """

    def __init__(
        self,
        graphs: Graphs,
        dtype: torch.dtype,
        frequencies: Callable[[Rope | None], Tensor],
        definition: Definition,
        cache: Sequence[Cache],
        block_size: int,
    ) -> None:
        self.device = graphs.device
        self.graphs = graphs
        self._pass = _DefinedPass(dtype, frequencies, definition, cache)
        self._cache = cache
        self._block_size = block_size

    @torch.inference_mode()
    def run(
        self, spans: Sequence[Span], input: Any = None, tokens: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Logits, float32 [sum of logit_rows, vocab], and what is kept, float32 [rows, sum of widths], on the
        device, where nobody has waited for them; good until the next run. tokens: int32 [rows], in place of
        the spans'."""
        laid, run = RowLayout.of(spans, self._block_size), self._pass
        inputs: dict[str, Any] = dict(laid.arrays)
        rows = len(inputs["tokens"])
        if tokens is not None:
            inputs["tokens"] = F.pad(tokens, (0, rows - laid.rows))
        if input is not None:
            given = torch.as_tensor(input).to(self.device, torch.float32)
            inputs["input"] = F.pad(given, (0, 0, 0, rows - len(given)))
        with computing_on(self.device):
            key = ("pass", laid.splits) if rows <= MOST_ROWS else None
            logits, *kept = self.graphs.run(key, inputs, lambda there: run(laid, there))
        count = laid.logit_rows if run.keeps_logit_rows else laid.rows
        return logits[: laid.logit_rows], kept[0][:count] if kept else None

    def __call__(self, spans: Sequence[Span], input: Any = None) -> Passed:
        logits, kept = self.run(spans, input)
        return Passed(logits.to("cpu", copy=True).numpy(), None if kept is None else kept.clone())

    def move(self, tables: Sequence[Sequence[int]], places: Sequence[int], to: int) -> None:
        size = self._block_size

        def slots(table: Sequence[int], of: Sequence[int]) -> Any:
            return np.array([table[place // size] * size + place % size for place in of])

        new = range(to, to + len(places))
        moves = [np.stack([slots(table, places), slots(table, new)]) for table in tables]
        there = upload({str(group): each for group, each in enumerate(moves)}, self.device)
        for layer in self._cache:
            if isinstance(layer, LayerCache):
                source, target = there[str(layer.group)]
                for values in (layer.keys, layer.values):
                    values[target] = values[source]

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
        kept = None if kept is None else kept.clone()
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
        with computing_on(self.device):
            chosen = iter(self._chosen(logits, changed, asked))
        tokens = [[next(chosen) for _ in range(choice.rows if choice else 0)] for choice in choices]
        if not looks:
            return Stepped(tokens, None, kept)
        looked_at, of_span = logits.clone(), zip(pairwise(ends), choices, strict=True)
        return Stepped(
            tokens, [TorchRows(looked_at[first:last], choice) for (first, last), choice in of_span], kept
        )

    def _chosen(self, logits: Tensor, changed: Sequence[Tensor], asked: Sequence[RowDraw]) -> Sequence[int]:
        """The tokens, for which the host waits. changed: rows behind those of the logits."""
        if not asked:
            return ()
        rows = torch.cat([logits, *changed]) if changed else logits
        draws = Draws.of(asked, rows.shape[1])
        key = ("choice", rows.data_ptr(), draws.by_k, draws.by_p) if self.graphs.holds(rows) else None
        (chosen,) = self.graphs.run(
            key, draws.arrays, lambda given: (Choosing(rows, draws, given).columns(),)
        )
        tokens: list[int] = chosen[: len(asked)].tolist()
        return tokens


class _DefinedPass:
    """A definition over a cache. keeps_logit_rows: whether what it keeps is of rows with logits alone, which
    is seen when it is run."""

    def __init__(
        self,
        dtype: torch.dtype,
        frequencies: Callable[[Rope | None], Tensor],
        definition: Definition,
        cache: Sequence[Cache],
    ) -> None:
        self._dtype, self._frequencies = dtype, frequencies
        self._definition, self._cache = definition, cache
        self.keeps_logit_rows = False

    def __call__(self, laid: RowLayout, there: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Logits, and what is kept if there is any, of all padded rows."""
        ops = GpuOps(laid.batch(there), self._dtype, self._frequencies, there.get("input"))
        logits: Tensor = self._definition(ops, self._cache)
        self.keeps_logit_rows = ops.keeps_logit_rows
        return (logits.float(), torch.cat(ops.kept, dim=-1).float()) if ops.kept else (logits.float(),)
