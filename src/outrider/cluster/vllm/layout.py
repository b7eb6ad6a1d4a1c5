"""What the ranks of a model, and of its drafter, take as vLLM loads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from outrider.cluster.vllm.config import VllmConfig
from outrider.cluster.vllm.described import Announced, described
from outrider.cluster.vllm.ranks import share_of, stage_of
from outrider.cluster.vllm.speculation import HEAD, head_of
from outrider.errors import ConfigError
from outrider.formats.format import Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.messages import shown
from outrider.models.leaves import load
from outrider.models.parts import Decoder
from outrider.ops.shapes import AttentionShape, StateShape
from outrider.planning.footprint import Footprint, footprint_of
from outrider.planning.ledger import Entry, Headers, Outline, Packing
from outrider.planning.passes import PassSize

DTYPES: Mapping[str, str] = MappingProxyType({"half": "float16", "float": "float32"})
"""vLLM's other names."""
FLOATS: Mapping[str, Format] = MappingProxyType(
    {"bfloat16": FORMATS["BF16"], "float16": FORMATS["F16"], "float32": FORMATS["F32"]}
)
SORTED = 16
"""Bytes of a word in each row that is chosen from: sorted, with its number, and its probability."""
WITHOUT_WEIGHTS = ("ngram", "ngram_gpu", "suffix")
"""Methods of drafting that take nothing of a device."""


class Unplanned(ConfigError):
    """vLLM may well do it, in memory that is not known."""


class RankLedger(Packing):
    """Weights as vLLM has them: only floats become others. What else it takes is counted with its own
    memory."""

    def spare(self, weights: Iterable[int]) -> int:
        return 0

    def workspace(self, shapes: Sequence[AttentionShape], size: PassSize) -> int:
        return 0

    def choosing(self, vocab: int, rows: int) -> int:
        return SORTED * vocab * rows

    def _packed(self, weights: Sequence[Weight], wanted: Format | None) -> tuple[Entry, ...]:
        formats = [wanted if wanted and each.format.is_float else each.format for each in weights]
        entries = tuple(
            Entry(format.name, weight.shape[0] * format.row_bytes(weight.inputs))
            for format, weight in zip(formats, weights, strict=True)
        )
        self.count(sum(entry.nbytes for entry in entries))
        return entries


@dataclass(frozen=True)
class Loaded:
    """Layers in a ledger. cached: what each keeps of the rows before."""

    backend: RankLedger
    cached: Sequence[AttentionShape | StateShape]

    @property
    def shapes(self) -> Sequence[AttentionShape]:
        return [shape for shape in self.cached if isinstance(shape, AttentionShape)]


@dataclass(frozen=True)
class RankLayout:
    """A target over ranks and stages. headers: of its files; dtype: of floats; cache_dtype: of K and V, as
    `Facts` names it; size: of the largest pass; block_size: positions of a block of K and V."""

    headers: Headers
    dtype: str
    cache_dtype: str
    ranks: int
    stages: int
    size: PassSize
    block_size: int

    @classmethod
    def of(cls, config: VllmConfig, headers: Headers, size: PassSize, block_size: int) -> RankLayout:
        """Raises ConfigError where heads or layers cannot be divided so, and Unplanned for weights, or K and
        V, of sizes that are not known."""
        tree = headers.config.tree
        if config.quantization is not None and headers.quantised_by is None:
            raise Unplanned(
                f"quantization = {config.quantization!r}: weights that vLLM quantises itself are not planned"
            )
        dtype = DTYPES.get(config.dtype, config.dtype)
        if dtype == "auto":
            dtype = "float16" if headers.config.dtype == "float16" else "bfloat16"
        cache = DTYPES.get(config.kv_cache_dtype, config.kv_cache_dtype)
        cache = "fp8" if cache.startswith("fp8") else dtype if cache == "auto" else cache
        for name, value in (("dtype", dtype), ("kv_cache_dtype", cache)):
            if value not in FLOATS and (name, value) != ("kv_cache_dtype", "fp8"):
                raise Unplanned(f"{name} = {value!r} is not planned; give 'auto', or {', '.join(FLOATS)}")
        ranks, stages = config.tensor_parallel_size, config.pipeline_parallel_size
        if stages > len(tree.blocks):
            raise ConfigError(
                f"pipeline_parallel_size = {stages}: {config.model!r} has {len(tree.blocks)} layers"
            )
        _check_heads(tree, ranks, config.model)
        return cls(headers, dtype, cache, ranks, stages, size, block_size)

    def stage(self, number: int) -> Footprint:
        """What one rank of a stage takes. The last one has logits, of all words."""
        tree = share_of(stage_of(self.headers.config.tree, number, self.stages), self.ranks)
        words = self.headers.config.vocab_size if number == self.stages - 1 else 0
        return self._footprint(tree, self.headers, tree.cached, width=tree.width, words=words)

    def drafter(self, drafting: Mapping[str, Any]) -> Footprint:
        """What the drafter takes of a rank of the last stage. drafting: vLLM's `speculative_config`. Raises
        ConfigError and ModelError for what it cannot be, and Unplanned for other kinds of it."""
        method, name = str(drafting.get("method")), str(drafting.get("model"))
        ranks = drafting.get("draft_tensor_parallel_size") or self.ranks
        config = self.headers.config
        if not drafting or method in WITHOUT_WEIGHTS:
            return Footprint()
        if method == "draft_model":
            headers = described(name)
            _check_heads(headers.config.tree, ranks, name)
            tree = share_of(headers.config.tree, ranks)
            words = headers.config.vocab_size
            return self._footprint(tree, headers, tree.cached, width=tree.width, words=words)
        if method.endswith("mtp") and config.mtp is not None:
            mtp = share_of(config.mtp, ranks)
            kept = mtp.block.attention.mixer.cached
            return self._footprint(mtp, self.headers, kept, width=mtp.width, words=config.vocab_size)
        if method == HEAD and (head := head_of(name)) is not None:
            parts = share_of(head.parts, ranks)
            kept = (
                parts.shape,
                *(shape for block in parts.further for shape in block.attention.mixer.cached),
            )
            of_target = share_of(config.tree.table, ranks) if self.stages > 1 and parts.table is None else ()
            return self._footprint(
                (parts, of_target),
                Announced(config),
                kept,
                width=parts.width + head.config.width,
                words=head.config.draft_vocab_size,
            )
        raise Unplanned(f"what {shown(drafting)} takes is not planned: it is of a kind that only vLLM knows")

    def _footprint(
        self,
        parts: Any,
        headers: Headers,
        cached: Sequence[AttentionShape | StateShape],
        *,
        width: int,
        words: int,
    ) -> Footprint:
        ledger = RankLedger(FLOATS[self.dtype], FLOATS[self.dtype], self.cache_dtype)
        load(parts, Outline(headers), ledger)
        size = replace(self.size, logit_rows=self.size.logit_rows if words else 0)
        return footprint_of(Loaded(ledger, cached), ledger, size, self.block_size, width=width, vocab=words)


def _check_heads(tree: Decoder, ranks: int, model: str) -> None:
    """Raise ConfigError where so many ranks cannot share the heads of a model."""

    def divides(number: int) -> bool:
        return all(
            shape.heads % number == 0 and (shape.kv_heads % number == 0 or number % shape.kv_heads == 0)
            for shape in tree.attention_shapes
        )

    if not divides(ranks):
        shape = tree.attention_shapes[0]
        right = next(number for number in range(ranks, 0, -1) if divides(number))
        raise ConfigError(
            f"tensor_parallel_size = {ranks}: so many cannot share the {shape.heads} heads of {model!r}, and "
            f"{shape.kv_heads} of K and V; give {right}"
        )
