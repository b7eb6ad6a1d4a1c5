"""Gemma 4's per-layer embeddings, by their names."""

from __future__ import annotations

from outrider.models.families.build import Layer, Sizes
from outrider.models.leaves import Linear, Table, Vector
from outrider.models.per_layer import PerLayerEmbedding, PerLayerInput
from outrider.models.settings import Settings
from outrider.models.tensors import Place, Tensor


def per_layer_embedding(c: Settings, sizes: Sizes) -> PerLayerEmbedding | None:
    """None where the settings name none."""
    width, vocab = "hidden_size_per_layer_input", c.get("vocab_size_per_layer_input")
    if not c.get(width):
        return None
    if vocab not in (None, sizes.vocab):
        raise c.error("vocab_size_per_layer_input", f"vocab_size, which is {sizes.vocab}")
    columns = sizes.layers * c.size(width)
    return PerLayerEmbedding(
        table=Table(_tensor("embed_tokens_per_layer", "per_layer_token_embd", sizes.vocab, columns)),
        projection=Linear(
            (_tensor("per_layer_model_projection", "per_layer_model_proj", columns, sizes.hidden),)
        ),
        scale=c.size(width) ** 0.5,
        projection_scale=sizes.hidden**-0.5,
    )


def per_layer_input(embedding: PerLayerEmbedding | None, layer: Layer) -> PerLayerInput | None:
    """The part of a layer."""
    if embedding is None:
        return None
    hidden, width = layer.sizes.hidden, embedding.table.tensor.shape[1] // layer.sizes.layers
    return PerLayerInput(
        first=layer.number * width,
        norm=Vector(_tensor("per_layer_projection_norm", "per_layer_proj_norm", width)),
        gate=layer.linear("per_layer_input_gate", "inp_gate", width, hidden),
        out=layer.linear("per_layer_projection", "proj", hidden, width),
        after=layer.vector("post_per_layer_input_norm", "post_norm", hidden),
        eps=layer.sizes.eps,
    )


def _tensor(hf: str, gguf: str, *shape: int) -> Tensor:
    return Tensor(Place(f"model.{hf}.weight"), Place(f"{gguf}.weight"), shape)
