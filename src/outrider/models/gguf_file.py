"""A checkpoint in one GGUF file, as llama.cpp writes them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from outrider.errors import ModelError
from outrider.messages import reason
from outrider.models.config import read_together
from outrider.models.folder import PROBE, with_ends
from outrider.models.gguf_blocks import CHANGED, FORMATS, dequantized, weight_of
from outrider.models.gguf_config import gguf_config, gguf_name
from outrider.models.gguf_header import StoredTensor, read_header
from outrider.models.gguf_magic import foreign
from outrider.models.gguf_tokenizer import build_tokenizer
from outrider.models.gguf_vocabulary import TOKENS
from outrider.models.tokenizer import load_tokenizer
from outrider.quantization.quantize import convert
from outrider.quantization.weight import Format, Weight

logger = logging.getLogger(__name__)

SAMPLING = "general.sampling."


class GGUFCheckpoint:
    """Weights are decoded when asked for; the file stays memory-mapped."""

    def __init__(self, path: Path, tokenizer_path: Path | None = None) -> None:
        self._path = path
        self._given = None if tokenizer_path is None else load_tokenizer(tokenizer_path)
        self._told: set[tuple[str, str]] = set()
        with _reading(path):
            header = read_header(path)
            self.config = gguf_config(header, str(path))
        self._metadata, self._tensors = header.metadata, header.tensors
        self.sampling_defaults = {
            key.removeprefix(SAMPLING): value
            for key, value in self._metadata.items()
            if key.startswith(SAMPLING)
        }
        self._shapes = self.config.shapes()
        if tokenizer_path is not None:
            self.config = with_ends(self.config, tokenizer_path)
        if not self.config.eos_token_ids and (self._given is not None or TOKENS in self._metadata):
            logger.warning(
                "%s names no token that ends a turn, and has none that is known to; output ends at "
                "max_tokens, or where stop or stop_token_ids say",
                path,
            )

    def tensor(self, name: str) -> Tensor:
        stored = self._stored(name)
        return _ordered(dequantized(stored).reshape(self._shapes[name]), self._order(name))

    def weight(self, name: str) -> Weight:
        stored, format = self._stored(name), self.format(name)
        kind = stored.type.name
        if format != FORMATS[kind]:
            self._tell(kind, f"{format} where gate and up of a layer differ")
        elif kind in CHANGED:
            self._tell(kind, CHANGED[kind])
        weight = convert(weight_of(stored), format)
        order = self._order(name)
        return weight if order is None else weight.rows(order)

    @property
    def stored_as(self) -> str:
        return str(self._stored(PROBE).type.name)

    def format(self, name: str) -> Format:
        formats = {FORMATS[self._stored(other).type.name] for other in read_together(name)}
        if len(formats) == 1:
            return formats.pop()
        return "float32" if formats & {"float32", "bfloat16"} else "int8"

    def _tell(self, kind: str, becomes: str) -> None:
        """Say once what becomes of a type that is not taken as it is."""
        if (kind, becomes) not in self._told:
            self._told.add((kind, becomes))
            logger.warning("%s: tensors of type %s become %s", self._path, kind, becomes)

    def _stored(self, name: str) -> StoredTensor:
        return self._tensors[gguf_name(name)]

    def _order(self, name: str) -> Tensor | None:
        """The order of Q's and K's rows, which llama.cpp changes."""
        heads = {"q_proj": self.config.num_heads, "k_proj": self.config.num_kv_heads}
        for part, count in heads.items():
            if f".{part}." in name:
                return _half_split(self._shapes[name][0], count)
        return None

    def tokenizer(self) -> PreTrainedTokenizerBase:
        if self._given is not None:
            return self._given
        with _reading(self._path):
            return build_tokenizer(self._metadata, str(self._path))


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what the reader and the libraries below raise, any of Python's errors, into one line."""
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:
        what = foreign(path)
        if what is not None:
            raise ModelError(f"{path} {what}") from error
        raise ModelError(f"{path} is truncated or corrupt: {reason(error)}") from error


def _half_split(rows: int, heads: int) -> Tensor:
    """Undo llama.cpp's order of Q and K rows: it pairs neighbouring rows for the rotation, Hugging Face
    (and this package) row i with row i + head_dim / 2."""
    return torch.arange(rows).reshape(heads, -1, 2).transpose(1, 2).flatten()


def _ordered(tensor: Tensor, order: Tensor | None) -> Tensor:
    return tensor if order is None else tensor[order]
