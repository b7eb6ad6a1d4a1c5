"""What an EAGLE-3 head takes: its weights, its cache, and what a pass needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from outrider.models.head_checkpoint import TABLE, HeadCheckpoint
from outrider.planning.footprint import Footprint, PassSize, decoder_footprint
from outrider.planning.layout import Layout, Matrix, Step, loose


def head_footprint(checkpoint: HeadCheckpoint, layout: Layout, size: PassSize, block_size: int) -> Footprint:
    """Of a head with a paged cache of its own. Raises ModelError for a tensor that is missing."""
    config = checkpoint.config
    decoder = replace(config.decoder, num_layers=1, vocab_size=config.draft_vocab_size)
    steps = list(head_steps(checkpoint, layout))
    footprint = decoder_footprint(decoder, steps, layout, size, block_size)
    states = 2 * 4 * size.rows * config.width  # of the target, joined and prepared
    return replace(footprint, passing=footprint.passing + states)


def head_steps(checkpoint: HeadCheckpoint, layout: Layout) -> Iterator[Step]:
    """Loading, in the order of `outrider.models.eagle3.Eagle3`, without what takes kilobytes."""
    config = checkpoint.config
    shapes = config.shapes()

    def matrix(name: str) -> Matrix:
        outputs, inputs = shapes[f"{name}.weight"]
        return Matrix(checkpoint.format(f"{name}.weight"), outputs, inputs)

    size = (config.decoder.vocab_size, config.decoder.hidden_size)
    if checkpoint.has_table:
        yield layout.table(Matrix(checkpoint.format(TABLE), *size))
    if not config.reads_output:
        yield layout.linear([matrix("fc")])
    whole = [matrix(f"midlayer.self_attn.{name}_proj") for name in "qkv"]
    half = layout.linear([m._replace(inputs=m.inputs // 2) for m in whole])
    yield from [replace(half, passes=half.passes + sum(map(loose, whole)))] * 2
    for name in ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"):
        yield layout.linear([matrix(f"midlayer.{name}")])
    if checkpoint.has_output:
        yield layout.linear([matrix("lm_head")])
    elif config.decoder.tie_word_embeddings:
        yield layout.tied(Matrix("float32", *size))
