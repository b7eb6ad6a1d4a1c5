"""A checkpoint in Hugging Face's layout: config.json, safetensors in one file or several, tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from outrider.cache.pages import release_pages
from outrider.errors import ModelError
from outrider.messages import listed
from outrider.models.config import DecoderConfig, decoder_config, read_together, stop_tokens
from outrider.models.end_of_turn import ends_of_tokenizer
from outrider.models.generation import sampling_defaults
from outrider.models.json_file import read_json
from outrider.models.keys import transformers_config
from outrider.models.schemes import refuse_scheme
from outrider.models.shards import Stored, WeightFiles
from outrider.models.tokenizer import load_tokenizer
from outrider.quantization.quantize import convert
from outrider.quantization.slabs import by_rows
from outrider.quantization.weight import Format, Weight, plain

PROBE = "model.layers.0.self_attn.o_proj.weight"  # stands for all linear layers
TABLE, HEAD = "model.embed_tokens.weight", "lm_head.weight"
PLAIN = ("F32", "F16", "BF16")  # types whose numbers are the weights; others need the scales of a scheme
BUFFERS = (".rotary_emb.inv_freq", ".rotary_emb.cos_cached", ".rotary_emb.sin_cached", ".masked_bias")
"""Ends of names: of what older versions of transformers stored, and later ones compute."""


class FolderCheckpoint:
    """Weights are memory-mapped and read one tensor at a time.

    sampling_defaults: what generation_config.json would have sampling be, where that is not neutral.
    """

    def __init__(self, path: Path, tokenizer_path: Path | None = None) -> None:
        self._path = path
        self._tokenizer_path = tokenizer_path or path
        file, generation_file = path / "config.json", path / "generation_config.json"
        if not file.exists():
            raise ModelError(f"{path} holds no config.json; it is not a Hugging Face model folder")
        raw = read_json(file)
        generation = read_json(generation_file) if generation_file.exists() else {}
        refuse_scheme(raw, path)
        config = decoder_config(transformers_config(raw, str(path)), str(path), generation)
        self.config = with_ends(config, self._tokenizer_path)
        self.sampling_defaults: Mapping[str, Any] = sampling_defaults(
            generation if generation_file.exists() else raw
        )
        self._shapes = self.config.shapes()
        self._shards = WeightFiles(path)
        _check_tensors(self._shards.tensors, self._shapes, path)

    def tensor(self, name: str) -> Tensor:
        return self._shards.read(name)

    @property
    def stored_as(self) -> str:
        return self._shards.tensors[PROBE].dtype

    def weight(self, name: str) -> Weight:
        if name == TABLE and self.config.tie_word_embeddings and HEAD in self._shards.tensors:
            self._check_tied()
        return convert(plain_weight(self.tensor(name)), self.format(name))

    def format(self, name: str) -> Format:
        types = {self._shards.tensors[other].dtype for other in read_together(name)}
        return "bfloat16" if types == {"BF16"} else "float32"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._tokenizer_path)

    def _check_tied(self) -> None:
        """An output layer beside a table that is tied to it has to be that table, since it is not read."""
        table, head = self.tensor(TABLE), self.tensor(HEAD)
        if table.dtype != head.dtype or not torch.equal(table, head):
            raise ModelError(
                f"{self._path}: tie_word_embeddings = True, but tensor {HEAD!r} is another than {TABLE!r}; "
                "if it is the output layer, tie_word_embeddings has to be false"
            )
        release_pages(head)


def with_ends(config: DecoderConfig, tokenizer_path: Path) -> DecoderConfig:
    """The tokens that end an output, the tokenizer's among them."""
    ends = stop_tokens(ends_of_tokenizer(tokenizer_path), config.vocab_size, str(tokenizer_path))
    return replace(config, eos_token_ids=tuple(sorted({*config.eos_token_ids, *ends})))


def _check_tensors(tensors: Mapping[str, Stored], shapes: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """The folder has the tensors of the model, in types that are supported, and no others.

    Raises ModelError.
    """
    missing = [name for name in shapes if name not in tensors]
    wrong = [name for name in shapes if name in tensors and tensors[name].dtype not in PLAIN]
    unread = [name for name in tensors if name not in shapes and name != HEAD and not name.endswith(BUFFERS)]
    if wrong:
        stored = tensors[wrong[0]]
        raise ModelError(
            f"{stored.file}: tensor {wrong[0]!r} is of type {stored.dtype}; supported are "
            f"{', '.join(PLAIN)}; no scheme is known by which others become weights{_beside(unread)}"
        )
    if unread:
        lacking = f", and tensor {missing[0]!r} is missing" if missing else ""
        raise ModelError(
            f"{path} has tensors that are not read, {len(unread)} in all{_beside(unread)}{lacking}"
        )
    if missing:
        raise ModelError(f"{path}: tensor {missing[0]!r} is missing")
    for name, expected in shapes.items():
        check_shape(tensors[name].file, name, tensors[name].shape, expected)


def _beside(unread: list[str]) -> str:
    """Tensors that are not read, one of each kind first."""
    kinds = {name.rpartition(".")[2]: name for name in reversed(unread)}
    return f": {listed([*kinds.values()][::-1])}" if unread else ""


def check_shape(file: Path, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise ModelError, naming where a tensor is from, if it has another shape."""
    if shape != expected:
        raise ModelError(f"{file}: tensor {name!r} has shape {shape}; config.json implies {expected}")


def shaped(path: Path, name: str, tensor: Tensor, expected: tuple[int, ...]) -> Tensor:
    """The tensor. Raises ModelError as `check_shape` does."""
    check_shape(path, name, tuple(tensor.shape), expected)
    return tensor


def plain_weight(mapped: Tensor) -> Weight:
    """A matrix of floats, as it is stored in a file that is mapped, whose pages are given back."""
    rows, columns = mapped.shape
    weight = by_rows(rows, columns, lambda first, last: plain(mapped[first:last]))
    release_pages(mapped)  # a small weight is not copied, and is then read a second time
    return weight
