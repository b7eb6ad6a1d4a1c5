"""The tensors of a model, found among those that a checkpoint stores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ModelError
from outrider.formats.format import Floats
from outrider.formats.weight import Weight
from outrider.models.config import ModelConfig
from outrider.models.leaves import tensors as tensors_of
from outrider.models.parts import Decoder
from outrider.models.stored import StoredTensor
from outrider.models.tensors import Place, Tensor

logger = logging.getLogger(__name__)

IMAGES = tuple(
    begins + part
    for begins in ("", "model.")
    for part in (
        "vision_tower.",
        "multi_modal_projector.",
        "visual.",
        "audio_tower.",
        "embed_vision.",
        "embed_audio.",
    )
)
"""Beginnings of names: of what a model reads images and sounds with."""
DRAFTS = "mtp."
"""The beginning of names of what predicts further tokens."""
TEXT = {"language_model.": "", "model.language_model.": "model."}
"""Beginnings of names of the text part, and what they are in a model of text."""


@dataclass(frozen=True)
class StorageLayout:
    """A way of storing models. places: where it may keep a tensor, the usual one first; in_pairs: with the
    rows of q and k in pairs where a tensor has `pairs`; as_written: with the values that `Tensor.from_hf`
    reads."""

    places: Callable[[Tensor], tuple[Place, ...]]
    in_pairs: bool
    as_written: bool


HUGGING_FACE = StorageLayout(
    lambda tensor: (tensor.hf, tensor.or_hf) if tensor.or_hf else (tensor.hf,),
    in_pairs=False,
    as_written=True,
)
GGUF = StorageLayout(lambda tensor: (tensor.gguf,), in_pairs=True, as_written=False)


def of_shared_layers(tree: Decoder) -> tuple[str, ...]:
    """Beginnings of names, in both layouts: of the K and V matrices of layers that read those of another
    layer. Files have some, of no use."""
    layers = [number for number, block in enumerate(tree.blocks) if block.reads is not None]
    begins = (
        "model.layers.{}.self_attn.k_",
        "model.layers.{}.self_attn.v_",
        "blk.{}.attn_k",
        "blk.{}.attn_v",
    )
    return tuple(begin.format(layer) for layer in layers for begin in begins)


class StoredModel:
    """`outrider.models.parts.Source` over stored tensors, which are read when they are used."""

    def __init__(self, stored: Mapping[str, StoredTensor], layout: StorageLayout) -> None:
        self._stored = stored
        self._layout = layout

    def names(self, tree: object) -> list[str]:
        """The stored tensors that a tree reads."""
        return list(dict.fromkeys(self._place(tensor).name for tensor in tensors_of(tree)))

    def check(self, tree: object, source: str, implied_by: str) -> None:
        """Raise ModelError for a tensor that is missing, of another shape, or no weight.

        source: where they have to be; implied_by: what says of which shape.
        """
        for tensor in tensors_of(tree):
            place = self._place(tensor)
            name = repr(place.name)
            stored = self._stored.get(place.name)
            if stored is None:
                also = "" if place.name == tensor.hf.name else f" ({tensor.hf.name!r})"
                raise ModelError(f"{source}: tensor {name}{also} is missing")
            expected = tensor.stored_shape(place)
            if _without_ones(stored.shape) != _without_ones(expected):
                raise ModelError(
                    f"{stored.file}: tensor {name} has shape {stored.shape}; {implied_by} {expected}"
                )
            block = stored.format.block  # it is refused here where it is no weight
            if place.column % block:
                raise ModelError(
                    f"{stored.file}: tensor {name} is {stored.format} and would be parted at input "
                    f"{place.column}, within a block; it has to be parted at a multiple of {block}"
                )
            if place.turned and not stored.format.is_float:
                raise ModelError(
                    f"{stored.file}: tensor {name} is {stored.format}, of matrices [in, out]; those have to "
                    "be of floating-point numbers"
                )

    def stored(self, tensor: Tensor) -> StoredTensor:
        """The stored tensor that holds a tensor of the model."""
        return self._stored[self._place(tensor).name]

    def weight(self, tensor: Tensor) -> Weight:
        weight, place = self.stored(tensor).weight(), self._place(tensor)
        rows, inputs = tensor.shape[0], tensor.shape[-1]
        if place.turned and place.shape is not None:
            matrix, first = divmod(place.first, place.shape[-1])
            whole = weight.rows(matrix * inputs, (matrix + 1) * inputs)
            weight = whole.turned(replace(place, first=first).rows(rows))
        elif weight.shape[0] != rows:
            chosen = place.rows(rows)
            weight = (
                weight.rows(chosen.start, chosen.stop, chosen.step)
                if isinstance(chosen, slice)
                else weight.reordered(chosen)
            )
        if weight.inputs != inputs:
            weight = weight.part(place.column, place.column + inputs)
        return weight.reordered(_half_split(tensor)) if self._in_pairs(tensor) else weight

    def floats(self, tensor: Tensor) -> Floats:
        stored, place = self.stored(tensor), self._place(tensor)
        values = stored.floats()
        if stored.shape != tensor.shape:
            values = values.reshape(-1, *tensor.shape[1:])[place.rows(tensor.shape[0])]
        if self._in_pairs(tensor):
            values = values[_half_split(tensor)]
        return tensor.from_hf(values) if tensor.from_hf and self._layout.as_written else values

    def release(self, tensor: Tensor) -> None:
        self.stored(tensor).release()

    def _place(self, tensor: Tensor) -> Place:
        """The first that is there; the usual one, where none is."""
        places = self._layout.places(tensor)
        return next((place for place in places if place.name in self._stored), places[0])

    def _in_pairs(self, tensor: Tensor) -> bool:
        return self._layout.in_pairs and tensor.pairs > 0


def text_tensors(stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors of a model's text part, by the names that a model of text has."""
    found = {}
    for name, tensor in stored.items():
        if not name.startswith(IMAGES):
            begins = next((begins for begins in TEXT if name.startswith(begins)), "")
            found[TEXT.get(begins, "") + name.removeprefix(begins)] = tensor
    return found


def with_layer_of_drafts(
    config: ModelConfig,
    stored: Mapping[str, StoredTensor],
    is_draft: Callable[[str], bool],
    layout: StorageLayout,
    source: str,
) -> tuple[ModelConfig, dict[str, StoredTensor]]:
    """The configuration, with `mtp` where that layer is stored, and the tensors of the model and that layer.

    is_draft: whether a tensor belongs to layers that predict further tokens (multi-token prediction). Those
    of which nothing is known are left out, and the log says so; so are copies of the model's own.
    """
    drafts = {name for name in stored if is_draft(name)}
    read = drafts & {*StoredModel(stored, layout).names(config.mtp)}
    left = drafts - read
    if left:
        logger.warning(
            "%s: %d tensors of layers that predict further tokens (MTP) are left out", source, len(left)
        )
    found = {name: tensor for name, tensor in stored.items() if name not in left}
    return (config if read else replace(config, mtp=None)), found


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Some writers drop dimensions of 1, and others keep them."""
    return tuple(size for size in shape if size != 1)


def _half_split(tensor: Tensor) -> NDArray[np.int32]:
    """Undo llama.cpp's order of Q and K rows: it pairs neighbouring rows for the rotation, Hugging Face
    (and this package) row i with row i + head_dim / 2."""
    rows = np.arange(tensor.shape[0], dtype=np.int32)
    return rows.reshape(tensor.pairs, -1, 2).swapaxes(1, 2).flatten()
