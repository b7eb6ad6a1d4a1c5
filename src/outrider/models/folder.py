"""A checkpoint in Hugging Face's layout: config.json, safetensors in one file or several, tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from outrider.errors import ModelError
from outrider.formats.format import Floats, Format
from outrider.formats.weight import Weight
from outrider.messages import listed
from outrider.models.config import ModelConfig, model_config
from outrider.models.end_of_turn import ends_of_tokenizer
from outrider.models.generation import sampling_defaults
from outrider.models.json_file import read_json
from outrider.models.pooling import folder_pooling
from outrider.models.registry import config_settings
from outrider.models.schemes import open_weights, scheme_of
from outrider.models.settings import stop_tokens
from outrider.models.source import (
    DRAFTS,
    HUGGING_FACE,
    StoredModel,
    of_shared_layers,
    text_tensors,
    with_layer_of_drafts,
)
from outrider.models.tensors import Tensor
from outrider.models.tokenizer import Tokenizer, load_tokenizer

HEAD = "lm_head.weight"
WITHIN = "model."
BUFFERS = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", ".masked_bias")
"""Ends of names: of what older versions of transformers stored, and later ones compute."""


class FolderCheckpoint:
    """Weights are memory-mapped and read when they are used.

    positions: that requests may have; see `Settings`.
    """

    def __init__(self, path: Path, tokenizer_path: Path | None = None, positions: int | None = None) -> None:
        self._path = path
        self._tokenizer_path = tokenizer_path or path
        file, generation_file = path / "config.json", path / "generation_config.json"
        if not file.exists():
            raise ModelError(f"{path} holds no config.json; it is not a Hugging Face model folder")
        raw = read_json(file)
        generation = read_json(generation_file) if generation_file.exists() else {}
        family, settings = config_settings(raw, str(path), positions)
        self.config = with_ends(model_config(family, settings, generation), self._tokenizer_path)
        self.sampling_defaults = sampling_defaults(generation if generation_file.exists() else raw)
        self.pooling = folder_pooling(path)
        self.quantised_by = scheme_of(raw, path).name
        stored = open_weights(path, raw)
        if "text_config" in raw:
            stored = text_tensors(stored)
        stored = {_beside(name): tensor for name, tensor in stored.items()}
        behind = _behind(self.config.num_layers, settings.get("num_nextn_predict_layers"))
        self.config, stored = with_layer_of_drafts(
            self.config, stored, lambda name: name.startswith((DRAFTS, *behind)), HUGGING_FACE, str(path)
        )
        self._model = StoredModel(stored, HUGGING_FACE)
        names = self._model.names(self.config.tree)
        known = {*names, *self._model.names(self.config.mtp), HEAD}
        for name in names:
            if name in stored:
                _ = stored[name].format  # refused where it is no weight, with the scales beside it
        useless = of_shared_layers(self.config.tree)
        unread = [
            name
            for name in stored
            if name not in known and not name.endswith(BUFFERS) and not name.startswith(useless)
        ]
        if unread:
            missing = [name for name in names if name not in stored]
            lacking = f", and tensor {missing[0]!r} is missing" if missing else ""
            raise ModelError(
                f"{path} has tensors that are not read, {len(unread)} in all"
                f"{_one_of_each_kind(unread)}{lacking}"
            )
        self.check(self.config.tree)
        self._head = stored.get(HEAD) if self.config.tree.tied else None

    @property
    def stored_as(self) -> str:
        return self.format(self.config.tree.linear.matrices[0]).name

    def format(self, tensor: Tensor) -> Format:
        return self._model.stored(tensor).format

    def check(self, parts: object) -> None:
        self._model.check(parts, str(self._path), "config.json implies")

    def weight(self, tensor: Tensor) -> Weight:
        if tensor == self.config.tree.table.tensor:
            self._check_tied(tensor)
        return self._model.weight(tensor)

    def floats(self, tensor: Tensor) -> Floats:
        return self._model.floats(tensor)

    def release(self, tensor: Tensor) -> None:
        self._model.release(tensor)

    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self._tokenizer_path)

    def _check_tied(self, table: Tensor) -> None:
        """An output layer beside a table that is tied to it has to be that table, since it is not read."""
        if self._head is None:
            return
        own, head = self._model.weight(table), self._head.weight()
        if own.format != head.format or not np.array_equal(own.data, head.data):
            raise ModelError(
                f"{self._path}: tie_word_embeddings = True, but tensor {HEAD!r} is another than "
                f"{table.hf.name!r}; if it is the output layer, tie_word_embeddings has to be false"
            )
        self._head.release()
        self._head = None


def _behind(layers: int, more: int | None) -> tuple[str, ...]:
    """Beginnings of the names of layers behind a model's own."""
    return tuple(f"model.layers.{number}." for number in range(layers, layers + (more or 0)))


def _beside(name: str) -> str:
    """The name of a layer of drafts beside the model's own layers, where some writers have it among them."""
    return name.removeprefix(WITHIN) if name.startswith(WITHIN + DRAFTS) else name


def with_ends(config: ModelConfig, tokenizer_path: Path) -> ModelConfig:
    """The tokens that end an output, the tokenizer's among them."""
    ends = stop_tokens(ends_of_tokenizer(tokenizer_path), config.vocab_size, str(tokenizer_path))
    return replace(config, eos_token_ids=tuple(sorted({*config.eos_token_ids, *ends})))


def _one_of_each_kind(unread: list[str]) -> str:
    """Tensors that are not read, one of each kind first."""
    kinds = {name.rpartition(".")[2]: name for name in reversed(unread)}
    return f": {listed([*kinds.values()][::-1])}"
