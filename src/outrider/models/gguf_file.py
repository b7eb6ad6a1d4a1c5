"""A checkpoint in a GGUF file, as llama.cpp writes them, or in the parts of one."""

from __future__ import annotations

import logging
from pathlib import Path

from outrider.errors import ModelError
from outrider.formats.format import Floats, Format
from outrider.formats.weight import Weight
from outrider.messages import listed
from outrider.models.config import model_config
from outrider.models.folder import with_ends
from outrider.models.generation import gguf_sampling_defaults
from outrider.models.gguf_magic import reading
from outrider.models.gguf_rope import rope_tensors
from outrider.models.gguf_settings import gguf_settings, layer_of
from outrider.models.gguf_tensors import open_gguf
from outrider.models.gguf_tokenizer import build_tokenizer
from outrider.models.gguf_vocabulary import TOKENS
from outrider.models.pooling import gguf_pooling
from outrider.models.source import GGUF, StoredModel, of_shared_layers, with_layer_of_drafts
from outrider.models.tensors import Tensor
from outrider.models.tokenizer import Tokenizer, load_tokenizer

logger = logging.getLogger(__name__)


class GGUFCheckpoint:
    """Weights are memory-mapped and read when they are used. positions: that requests may have; see
    `Settings`."""

    quantised_by = "gguf"

    def __init__(self, path: Path, tokenizer_path: Path | None = None, positions: int | None = None) -> None:
        self._path = path
        self._given = None if tokenizer_path is None else load_tokenizer(tokenizer_path)
        file = open_gguf(path)
        with reading(path):
            family, settings = gguf_settings(file.metadata, file.tensors, str(path), positions)
            self.config = model_config(family, settings)
        self._metadata = file.metadata
        self.pooling = gguf_pooling(self._metadata)
        self.sampling_defaults = gguf_sampling_defaults(self._metadata)
        behind = range(self.config.num_layers, file.metadata[f"{family.gguf}.block_count"])
        self.config, tensors = with_layer_of_drafts(
            self.config, file.tensors, lambda name: layer_of(name) in behind, GGUF, str(path)
        )
        self._model = StoredModel(tensors, GGUF)
        useless = of_shared_layers(self.config.tree)
        read = {*self._model.names(self.config.tree), *self._model.names(self.config.mtp)}
        known = read | set(rope_tensors(tensors))
        unused = sorted(name for name in tensors.keys() - known if not name.startswith(useless))
        if unused:
            raise ModelError(
                f"{path} has tensors that a model of architecture {family.gguf!r} with "
                f"{self.config.num_layers} layers has no use for: {listed(unused)}"
            )
        self.check(self.config.tree)
        if tokenizer_path is not None:
            self.config = with_ends(self.config, tokenizer_path)
        if not self.config.eos_token_ids and (self._given is not None or TOKENS in self._metadata):
            logger.warning(
                "%s names no token that ends a turn, and has none that is known to; output ends at "
                "max_tokens, or where stop or stop_token_ids say",
                path,
            )

    @property
    def stored_as(self) -> str:
        return self.format(self.config.tree.linear.matrices[0]).name

    def format(self, tensor: Tensor) -> Format:
        return self._model.stored(tensor).format

    def check(self, parts: object) -> None:
        self._model.check(parts, str(self._path), "the metadata implies")

    def weight(self, tensor: Tensor) -> Weight:
        return self._model.weight(tensor)

    def floats(self, tensor: Tensor) -> Floats:
        return self._model.floats(tensor)

    def release(self, tensor: Tensor) -> None:
        self._model.release(tensor)

    def tokenizer(self) -> Tokenizer:
        if self._given is not None:
            return self._given
        with reading(self._path):
            return build_tokenizer(self._metadata, str(self._path))
