"""What a model takes: its weights, its cache, and what a pass needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from outrider.models.checkpoint import Checkpoint
from outrider.models.config import DecoderConfig
from outrider.planning.layout import Layout, Matrix, Step

CHUNK = 128  # positions after which attention may be cut, native/kernels_attention.h
CUT_ROWS = 16  # of a pass, whose attention is cut at most: with more rows there is work for all threads
CUT_MOST = 2**27  # bytes


@dataclass(frozen=True)
class Footprint:
    """Bytes of a model or a drafter.

    weights: that stay; peak: the most that loading takes, what stays of it counted; block: of K and V in one
    cache block; position: kept for each position of a request beside these; passing: that a forward pass of
    the planned size needs; read: of the weights, that a pass over one row reads.
    """

    weights: int = 0
    peak: int = 0
    block: int = 0
    position: int = 0
    passing: int = 0
    read: int = 0


@dataclass(frozen=True)
class PassSize:
    """The largest forward pass: rows, rows with logits, and positions of the longest request."""

    rows: int
    logit_rows: int
    positions: int


def model_footprint(checkpoint: Checkpoint, layout: Layout, size: PassSize, block_size: int) -> Footprint:
    """Of a decoder with a paged cache of its own. Raises ModelError for a tensor that is missing."""
    config = checkpoint.config
    steps = [*table_steps(checkpoint, layout), *layer_steps(checkpoint, layout)]
    footprint = decoder_footprint(config, steps, layout, size, block_size)
    # A pass looks tokens up in the table, and reads it whole only where it is the output layer.
    table = 0 if config.tie_word_embeddings else steps[0].stays
    return replace(footprint, read=footprint.weights - table)


def decoder_footprint(
    config: DecoderConfig, steps: Sequence[Step], layout: Layout, size: PassSize, block_size: int
) -> Footprint:
    """Of layers that are loaded in these steps, with a paged cache."""
    weights, peak = total(steps)
    values = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return Footprint(
        weights=weights,
        peak=peak,
        block=values * block_size * layout.cache_itemsize,
        passing=activations(config, size) + size.logit_rows * config.vocab_size * 4,
    )


def total(steps: Sequence[Step]) -> tuple[int, int]:
    """What stays of all steps, and the most that there is at a time."""
    stays = peak = 0
    for step in steps:
        peak = max(peak, stays + step.stays + step.passes)
        stays += step.stays
    return stays, peak


EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
GROUPS = (
    ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    ("self_attn.o_proj",),
    ("mlp.gate_proj",),
    ("mlp.up_proj",),
    ("mlp.down_proj",),
)


def table_steps(checkpoint: Checkpoint, layout: Layout) -> Iterator[Step]:
    """The table of tokens, then the output layer, which `outrider.models.llama.Llama` loads first."""
    table = matrix(checkpoint, EMBEDDING)
    yield layout.table(table)
    tied = checkpoint.config.tie_word_embeddings
    yield layout.tied(table) if tied else layout.linear([matrix(checkpoint, HEAD)])


def layer_steps(checkpoint: Checkpoint, layout: Layout) -> Iterator[Step]:
    """The layers in their order. Norms and biases are left out: they are kilobytes."""
    for i in range(checkpoint.config.num_layers):
        for names in GROUPS:
            yield layout.linear([matrix(checkpoint, f"model.layers.{i}.{name}.weight") for name in names])


def matrix(checkpoint: Checkpoint, name: str) -> Matrix:
    """A matrix by its Hugging Face name."""
    outputs, inputs = checkpoint.config.shapes()[name]
    return Matrix(checkpoint.format(name), outputs, inputs)


def activations(config: DecoderConfig, size: PassSize) -> int:
    """Bytes of the values of a pass: in float32, and prepared for a linear layer, which takes no more."""
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    row = 4 * (2 * config.hidden_size + max(2 * config.intermediate_size, 2 * q + 2 * kv))
    state = 4 * config.num_heads * (config.head_dim + 2)  # of attention that is cut, at each cut
    cut = min(size.rows, CUT_ROWS) * state * ceil(size.positions / CHUNK)
    return size.rows * row + min(cut, CUT_MOST)
