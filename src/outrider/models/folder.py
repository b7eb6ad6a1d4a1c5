"""A checkpoint in Hugging Face's layout: config.json, safetensors in one file or several, tokenizer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from outrider.cache.pages import release_pages
from outrider.errors import ModelError
from outrider.models.config import SUPPORTED, decoder_config
from outrider.quantization.slabs import by_rows
from outrider.quantization.weight import Format, Weight, plain

PROBE = "model.layers.0.self_attn.o_proj.weight"  # stands for all linear layers
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class FolderCheckpoint:
    """Weights are memory-mapped and read one tensor at a time."""

    def __init__(self, path: Path, tokenizer_path: Path | None = None) -> None:
        self._path = path
        self._tokenizer_path = tokenizer_path or path
        generation = path / "generation_config.json"
        self.config = decoder_config(
            _transformers_config(path), str(path), read_json(generation) if generation.is_file() else None
        )
        self._shapes = self.config.shapes()
        self._file_of = self._files()
        self._open: dict[Path, Any] = {}
        self._stack = ExitStack()

    def tensor(self, name: str) -> Tensor:
        path = self._file(name)
        with _reading(path, name):
            tensor: Tensor = self._opened(path).get_tensor(name)
        return shaped(path, name, tensor, self._shapes[name])

    @property
    def stored_as(self) -> str:
        return self._dtype(PROBE)

    def weight(self, name: str) -> Weight:
        return plain_weight(self.tensor(name))

    def format(self, name: str) -> Format:
        return "bfloat16" if self._dtype(name) == "BF16" else "float32"

    def tokenizer(self) -> PreTrainedTokenizerBase:
        return load_tokenizer(self._tokenizer_path)

    def _dtype(self, name: str) -> str:
        path = self._file(name)
        with _reading(path, name):
            return str(self._opened(path).get_slice(name).get_dtype())

    def _file(self, name: str) -> Path:
        path = self._file_of.get(name)
        if path is None:
            raise ModelError(f"{self._path}: tensor {name!r} is missing")
        return path

    def _files(self) -> dict[str, Path]:
        """Which file holds each tensor."""
        index, single = self._path / INDEX, self._path / SINGLE
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict):
                raise ModelError(f"{index} has no 'weight_map'; it is truncated or corrupt")
            files = {name: self._path / str(file) for name, file in weight_map.items()}
            for path in sorted(set(files.values())):
                if not path.is_file():
                    raise ModelError(f"{path} is missing, though {INDEX} names it")
                self._names(path)
            return files
        if not single.is_file():
            raise ModelError(f"{self._path} holds neither {SINGLE} nor {INDEX}")
        return dict.fromkeys(self._names(single), single)

    def _names(self, path: Path) -> list[str]:
        """The tensors of a file, whose header is checked by reading it."""
        try:
            with safe_open(path, framework="pt") as file:
                return list(file.keys())
        except (SafetensorError, OSError, ValueError) as error:
            raise ModelError(f"{path} is truncated or corrupt: {error}") from error

    def _opened(self, path: Path) -> Any:
        if path not in self._open:
            self._open[path] = self._stack.enter_context(safe_open(path, framework="pt"))
        return self._open[path]


def shaped(path: Path, name: str, tensor: Tensor, expected: tuple[int, ...]) -> Tensor:
    """The tensor. Raises ModelError, naming where it is from, if it has another shape."""
    if tuple(tensor.shape) != expected:
        raise ModelError(
            f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}; config.json implies {expected}"
        )
    return tensor


def plain_weight(mapped: Tensor) -> Weight:
    """A matrix of floats, as it is stored in a file that is mapped, whose pages are given back."""
    rows, columns = mapped.shape
    weight = by_rows(rows, columns, lambda first, last: plain(mapped[first:last]))
    release_pages(mapped)  # a small weight is not copied, and is then read a second time
    return weight


@contextmanager
def _reading(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or corrupt: tensor {name!r}: {error}") from error


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer in a folder, which need not hold a model. Raises ModelError."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except Exception as error:  # the libraries below raise anything, bare Exception included
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{path}: the tokenizer cannot be loaded: {reason}") from error
    if not tokenizer.is_fast:
        raise ModelError(f"{path}: only a slow tokenizer is available; a tokenizer.json is needed")
    return tokenizer


def _transformers_config(path: Path) -> Any:
    file = path / "config.json"
    if not file.is_file():
        raise ModelError(f"{path} holds no config.json; it is not a Hugging Face model folder")
    raw = read_json(file)
    architectures = raw.get("architectures")
    architecture = (
        architectures[0] if isinstance(architectures, list) and architectures else raw.get("model_type")
    )
    if architecture not in SUPPORTED:  # asked first: transformers knows not every one of them either
        raise ModelError(
            f"{path}: architecture {architecture!r} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True)
    except Exception as error:  # validation errors of many kinds
        raise ModelError(f"{file} is not a valid configuration: {error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is not a JSON object")
    return value
