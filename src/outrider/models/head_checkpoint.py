"""EAGLE-3 heads on disk, in the public layout: config.json, and model.safetensors or pytorch_model.bin.

A matrix may also be stored in 4 bits, which only this package reads: instead of `X.weight` there are
`X.weight.codes`, uint8 [out, in / 2] with the first half of each 32 inputs in the low nibbles, and
`X.weight.scales`, float16 [out, in / 32], as the format 'int4' has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.cache.pages import release_pages
from outrider.errors import ModelError
from outrider.models.checkpoint import locate
from outrider.models.config import DecoderConfig
from outrider.models.folder import plain_weight, shaped
from outrider.models.gguf_blocks import nibbles
from outrider.models.head_config import HeadConfig, usual_layers
from outrider.models.json_file import read_json
from outrider.quantization.quantize import convert
from outrider.quantization.slabs import by_rows
from outrider.quantization.weight import GROUP, Format, Weight, plain

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
SPLIT = tuple(f"midlayer.self_attn.{name}_proj.weight" for name in "qkv")  # [embedding, state]
TABLE = "embed_tokens.weight"


class HeadCheckpoint:
    """A head in a folder, weights memory-mapped. Raises ModelError for what is missing or broken."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ModelError(
                f"head {str(path)!r} is not a folder; give one with config.json and {SAFETENSORS}"
            )
        self.path = path
        self.config = HeadConfig.parse(read_json(path / "config.json"), str(path / "config.json"))
        self._tensors = _load(path)
        self._shapes = self.config.shapes()

    def tensor(self, name: str) -> Tensor:
        """A tensor by its public name, as it is stored."""
        return self._checked(name, self._stored(name))

    def weight(self, name: str) -> Weight:
        """A matrix by its public name."""
        codes, scales = (self._tensors.get(f"{name}.{part}") for part in ("codes", "scales"))
        if codes is None or scales is None:
            return plain_weight(self.tensor(name))
        return self._of_codes(name, codes, scales)

    def format(self, name: str) -> Format:
        """The format of `weight(name)`, from the file's header alone."""
        if f"{name}.codes" in self._tensors:
            return "int4"
        return "bfloat16" if self._stored(name).dtype == torch.bfloat16 else "float32"

    @property
    def has_table(self) -> bool:
        """Whether it has an embedding table of its own, and does not share the target's."""
        return TABLE in self._tensors

    def table(self) -> Weight | None:
        """Its own embedding table, if it has one."""
        if not self.has_table:
            return None
        expected = (self.config.decoder.vocab_size, self.config.decoder.hidden_size)
        return plain_weight(shaped(self.path, TABLE, self._tensors[TABLE], expected))

    def targets(self) -> Tensor:
        """The target's id of each token that the head can say; int64 [draft vocab]."""
        count, vocab = self.config.draft_vocab_size, self.config.decoder.vocab_size
        offsets = self._tensors.get("d2t")
        if offsets is None:
            if count != vocab:
                raise ModelError(f"{self.path}: tensor 'd2t' is missing, and {count} tokens are not {vocab}")
            return torch.arange(vocab)
        ids = torch.arange(count) + shaped(self.path, "d2t", offsets, (count,)).long()
        if int(ids.min()) < 0 or int(ids.max()) >= vocab or len(set(ids.tolist())) != count:
            raise ModelError(f"{self.path}: 'd2t' does not lead to {count} different ids below {vocab}")
        known = self._tensors.get("t2d")
        if known is not None and (len(known) != vocab or int(known.sum()) != count or not known[ids].all()):
            raise ModelError(f"{self.path}: 't2d' does not mark the tokens that 'd2t' leads to")
        return ids

    def layers(self, target: DecoderConfig, name: str) -> tuple[int, int, int]:
        """The target's layers that it reads. Raises ModelError if it was made for another than `name`."""
        config, decoder = self.config, self.config.decoder
        layers = config.state_layers or usual_layers(target.num_layers)
        shared = target.hidden_size if self.has_table else decoder.hidden_size
        facts = {
            "hidden size": (config.target_hidden_size, target.hidden_size),
            "size of shared embeddings": (shared, target.hidden_size),
            "vocabulary size": (decoder.vocab_size, target.vocab_size),
            "number of layers": (config.target_layers or target.num_layers, target.num_layers),
        }
        for what, (of_head, of_target) in facts.items():
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
        return layers

    def _stored(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path}: tensor {name!r} is missing")
        return tensor

    def _of_codes(self, name: str, codes: Tensor, scales: Tensor) -> Weight:
        rows, columns = codes.shape[0], 2 * codes.shape[1]
        weight = by_rows(
            rows,
            columns,
            lambda first, last: Weight("int4", _unpacked(codes[first:last]), scales[first:last]),
        )
        release_pages(codes)
        self._checked(name, weight.values)
        return weight

    def _checked(self, name: str, tensor: Tensor) -> Tensor:
        return shaped(self.path, name, tensor, self._shapes[name])


def save_head(path: Path, config: HeadConfig, tensors: Mapping[str, Tensor], targets: Tensor) -> None:
    """Write a head in the public layout. tensors: by public name; targets: see `HeadCheckpoint.targets`."""
    path.mkdir(parents=True, exist_ok=True)
    known = torch.zeros(config.decoder.vocab_size, dtype=torch.bool)
    known[targets] = True
    maps = {"d2t": targets - torch.arange(len(targets)), "t2d": known}
    save_file({name: tensor.contiguous() for name, tensor in {**tensors, **maps}.items()}, path / SAFETENSORS)
    (path / "config.json").write_text(json.dumps(config.to_json(), indent=2) + "\n", encoding="utf-8")


def quantized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same head with its matrices in 4 bits. Raises ModelError where 32 does not divide their inputs."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2:
            small[name] = tensor.half()
            continue
        _check_groups(name, tensor.shape[1])
        weight = convert(plain(tensor), "int4")
        assert weight.scales is not None
        small[f"{name}.codes"], small[f"{name}.scales"] = _packed(weight.values), weight.scales
    return small


def check_groups(config: HeadConfig) -> None:
    """Raises ModelError if `quantized` would, of a head of this shape."""
    for name, shape in config.shapes().items():
        if len(shape) == 2:
            _check_groups(name, shape[1])


def is_head(path: Path) -> bool:
    """Whether a folder holds a head, and not a whole model."""
    config = path / "config.json"
    return config.is_file() and "draft_vocab_size" in read_json(config)


def locate_head(name: str) -> Path:
    """The folder of a head, downloaded if need be; 'head' is the one that comes with this package."""
    if name == "head":
        return Path(str(files("outrider") / "heads" / "smollm2"))
    return locate(name)


def _check_groups(name: str, inputs: int) -> None:
    needed = 2 * GROUP if name in SPLIT else GROUP
    if inputs % needed:
        raise ModelError(f"{name} has {inputs} inputs; 4 bits need a multiple of {needed}")


def _packed(codes: Tensor) -> Tensor:
    halves = codes.view(len(codes), -1, 2, GROUP // 2)
    return (halves[:, :, 0] | halves[:, :, 1] << 4).flatten(1)


def _unpacked(packed: Tensor) -> Tensor:
    groups = packed.view(len(packed), -1, GROUP // 2).numpy()
    return torch.from_numpy(nibbles(groups)).flatten(1)


def _load(path: Path) -> dict[str, Tensor]:
    single, pickled = path / SAFETENSORS, path / PICKLED
    file = single if single.is_file() else pickled
    if not file.is_file():
        raise ModelError(f"{path} holds neither {SAFETENSORS} nor {PICKLED}")
    try:
        if file is single:
            return dict(load_file(file))
        mapped = is_zipfile(file)  # what older versions of PyTorch wrote is not
        return dict(torch.load(file, map_location="cpu", weights_only=True, mmap=mapped))
    except (SafetensorError, OSError, ValueError, RuntimeError, EOFError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"{file} is truncated or corrupt: {reason}") from error
