"""EAGLE-3 heads on disk, in the public layouts: config.json, and tensors as `head_file.py` has them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import copy
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from outrider.errors import ModelError
from outrider.formats.convert import convert
from outrider.formats.floats import F32, float32_to_bfloat16
from outrider.formats.format import Floats
from outrider.formats.grouped import GROUP, Q4_0
from outrider.formats.weight import Weight
from outrider.models.checkpoint import HUB_FILES, locate
from outrider.models.config import ModelConfig
from outrider.models.head_config import HeadConfig, usual_layers
from outrider.models.head_file import CODES, PICKLED, SAFETENSORS, SCALES, HeadFile, tensor_names
from outrider.models.head_kinds import is_drafter, refuse_other_configs, refuse_other_tensors
from outrider.models.head_parts import OUTPUT, TABLE, head_parts
from outrider.models.json_file import read_json
from outrider.models.leaves import tensors as tensors_of
from outrider.models.shards import RawTensor, in_memory, save_safetensors
from outrider.models.source import HUGGING_FACE, StoredModel
from outrider.models.tensors import Tensor

TARGETS, KNOWN = "d2t", "t2d"
INTEGERS = ("I64", "I32", "I16", "I8", "U8", "BOOL")


class HeadCheckpoint:
    """A head in a folder, weights memory-mapped: a `Source` of its `parts`.

    stored: every tensor by its public name. Raises ModelError for what is missing or broken, and says what it
    is where it is another kind of drafter.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ModelError(
                f"head {str(path)!r} is not a folder; give one with config.json and {SAFETENSORS}"
            )
        self.path = path
        raw = read_json(path / "config.json")
        refuse_other_configs(raw, str(path / "config.json"))
        self._file = HeadFile.open(path)
        refuse_other_tensors(self._file.tensors.keys(), str(self._file.path))
        self.config = HeadConfig.parse(raw, str(path / "config.json"))
        self.stored = self._file.weights()
        self._model = StoredModel(self.stored, HUGGING_FACE)
        self.parts = head_parts(self.config, table=TABLE in self.stored, output=OUTPUT in self.stored)

    def weight(self, tensor: Tensor) -> Weight:
        return self._model.weight(tensor)

    def floats(self, tensor: Tensor) -> Floats:
        return self._model.floats(tensor)

    def release(self, tensor: Tensor) -> None:
        if self._file.mapped:
            self._model.release(tensor)

    @property
    def raw(self) -> Mapping[str, RawTensor]:
        """What the file holds, by public names; a matrix in 4 bits as two tensors."""
        return self._file.tensors

    @property
    def quantized(self) -> bool:
        """Whether its matrices are stored in 4 bits."""
        return any(name.endswith(CODES) for name in self._file.tensors)

    def with_tensors(self, tensors: Mapping[str, NDArray[Any]]) -> HeadCheckpoint:
        """The same head with other values, which need no file. tensors: as `save_head` takes them."""
        file, other = self._file.path, copy(self)
        maps = {name: raw for name, raw in self._file.tensors.items() if name in (TARGETS, KNOWN)}
        other._file = HeadFile(file, maps | in_memory(tensors, file), mapped=False)
        other.stored = other._file.weights()
        other._model = StoredModel(other.stored, HUGGING_FACE)
        return other

    def save(self, path: Path) -> None:
        """Write the head as `save_head` does."""
        tensors = {name: raw.array() for name, raw in self.raw.items() if name not in (TARGETS, KNOWN)}
        save_head(path, self.config, tensors, self.targets())

    def targets(self) -> NDArray[np.int64]:
        """The target's id of each token that the head can say; [draft vocab]."""
        self._check_tensors()
        count, vocab = self.config.draft_vocab_size, self.config.sizes.vocab
        offsets = self._integers(TARGETS, count)
        if offsets is None:
            if count != vocab:
                raise ModelError(f"{self.path}: tensor 'd2t' is missing, and {count} tokens are not {vocab}")
            return np.arange(vocab)
        ids = np.arange(count) + offsets.astype(np.int64)
        if ids.min() < 0 or ids.max() >= vocab or len(np.unique(ids)) != count:
            raise ModelError(f"{self.path}: 'd2t' does not lead to {count} different ids below {vocab}")
        known = self._integers(KNOWN, vocab)
        if known is not None and (np.count_nonzero(known) != count or not known[ids].all()):
            raise ModelError(f"{self.path}: 't2d' does not mark the tokens that 'd2t' leads to")
        return ids

    def layers(self, target: ModelConfig, name: str) -> tuple[int, ...]:
        """The target's layers that it reads. Raises ModelError if it was made for another than `name`, and if
        its tensors are not what its config.json says."""
        config, own = self.config, self.config.sizes
        layers = config.state_layers or usual_layers(target.num_layers)
        if config.reads_output:
            layers = (target.num_layers,)
        facts = [
            ("hidden size", config.target_hidden_size, target.hidden_size),
            ("vocabulary size", own.vocab, target.vocab_size),
            ("number of layers", config.target_layers or target.num_layers, target.num_layers),
        ]
        if self.parts.table is None:
            facts.append(("size of shared embeddings", own.hidden, target.hidden_size))
        if self.parts.output is None:
            facts.append(("size of the shared output layer", own.hidden, target.hidden_size))
        for what, of_head, of_target in facts:
            if of_head != of_target:
                raise ModelError(
                    f"the head {str(self.path)!r} was not made for the target {name!r}: its target's {what} "
                    f"is {of_head}, and {of_target} is this one's"
                )
        if layers[0] < 0 or layers[-1] > target.num_layers:
            raise ModelError(
                f"the head {str(self.path)!r} was not made for the target {name!r}: it reads layers "
                f"{layers}, and the target has {target.num_layers}"
            )
        self._check_tensors()
        return layers

    def _check_tensors(self) -> None:
        """Raises ModelError for a tensor that is missing, of another shape or type, or not read.

        Nothing of a size that config.json names is made before.
        """
        self._model.check(self.parts, str(self.path), "config.json implies")
        read = {*self._model.names(self.parts), TARGETS, KNOWN}
        for name in self.stored:
            if name not in read:
                raise ModelError(
                    f"{self.path}: tensor {name!r} is not read, and may change what the head drafts; "
                    "config.json does not ask for it, or it is of another kind of head"
                )
        count, vocab = self.config.draft_vocab_size, self.config.sizes.vocab
        if self.parts.output is None and count != vocab:
            raise ModelError(
                f"{self.path}: tensor {OUTPUT!r} is missing, and an output layer for {count} tokens is not "
                f"the target's, which has {vocab}"
            )

    def _integers(self, name: str, size: int) -> NDArray[Any] | None:
        raw = self._file.tensors.get(name)
        if raw is None:
            return None
        if raw.dtype not in INTEGERS:
            raise ModelError(
                f"{self.path}: tensor {name!r} is of {raw.dtype}; it has to be of {' or '.join(INTEGERS)}"
            )
        if raw.shape != (size,):
            raise ModelError(
                f"{self.path}: tensor {name!r} has shape {raw.shape}; config.json implies ({size},)"
            )
        return raw.array()


def save_head(
    path: Path, config: HeadConfig, tensors: Mapping[str, NDArray[Any]], targets: NDArray[np.int64]
) -> None:
    """Write a head in the public layout. tensors: by public name, as `save_safetensors` takes them; targets:
    see `HeadCheckpoint.targets`."""
    path.mkdir(parents=True, exist_ok=True)
    save_safetensors(path / SAFETENSORS, {**tensors, **_maps(targets, config.sizes.vocab)})
    (path / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n", encoding="utf-8")


def _maps(targets: NDArray[np.int64], vocab: int) -> dict[str, NDArray[Any]]:
    """None for a head that can say all tokens: vLLM expects none."""
    if np.array_equal(targets, np.arange(vocab)):
        return {}
    known = np.zeros(vocab, np.bool_)
    known[targets] = True
    return {TARGETS: targets - np.arange(len(targets)), KNOWN: known}


def in_bfloat16(tensors: Mapping[str, Floats]) -> dict[str, NDArray[np.uint16]]:
    """The same head in bfloat16."""
    return {name: float32_to_bfloat16(values) for name, values in tensors.items()}


def quantized(tensors: Mapping[str, Floats]) -> dict[str, NDArray[Any]]:
    """The same head with its matrices in 4 bits. Raises ModelError where 32 does not divide their inputs."""
    small: dict[str, NDArray[Any]] = {}
    for name, values in tensors.items():
        if values.ndim != 2:
            small[name] = values.astype(np.float16)
            continue
        _check_inputs(name, values.shape[1])
        blocks = four_bits(values).data.reshape(len(values), -1, Q4_0.size)
        small[name + CODES] = blocks[..., 2:].reshape(len(values), -1)
        small[name + SCALES] = blocks[..., :2].copy().view("<f2")[..., 0]
    return small


def four_bits(matrix: Floats) -> Weight:
    """The nearest matrix of 4 bits."""
    return convert(Weight(F32, np.ascontiguousarray(matrix).view(np.uint8), matrix.shape[1]), Q4_0)


def check_groups(config: HeadConfig) -> None:
    """Raises ModelError where a head of this shape cannot be stored in 4 bits."""
    for tensor in tensors_of(head_parts(config)):
        if len(tensor.shape) == 2:
            _check_inputs(tensor.hf.name, tensor.shape[1])


def is_head(path: Path) -> bool:
    """Whether a folder holds a head or another drafter, and not a whole model."""
    config = path / "config.json"
    if not config.is_file():
        return False
    raw = read_json(config)
    if is_drafter(raw):
        return True
    # EAGLE-1's config.json is that of a whole model of one layer, which would be in safetensors to be read.
    return raw.get("num_hidden_layers") == 1 and (
        not _has_safetensors(path) or "fc.weight" in tensor_names(path)
    )


def locate_head(name: str) -> Path:
    """The folder of a head, downloaded if need be; 'head' is the one that comes with this package."""
    if name == "head":
        return Path(str(files("outrider") / "heads" / "smollm2"))
    path = locate(name)
    return path if _has_safetensors(path) else locate(name, files=(*HUB_FILES, PICKLED))


def _has_safetensors(path: Path) -> bool:
    return any(path.glob("*.safetensors"))


def _check_inputs(name: str, inputs: int) -> None:
    if inputs % GROUP:
        raise ModelError(f"{name} has {inputs} inputs; 4 bits need a multiple of {GROUP}")
