"""EAGLE-3 heads on disk, in the public layouts: config.json, and model.safetensors or pytorch_model.bin.

A matrix may also be stored in 4 bits, which only this package reads: instead of `X.weight` there are
`X.weight.codes`, uint8 [out, in / 2] with the first half of each 32 inputs in the low nibbles, and
`X.weight.scales`, float16 [out, in / 32], as the format 'int4' has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from outrider.cache.pages import release_pages
from outrider.errors import ModelError
from outrider.models.checkpoint import HUB_FILES, locate
from outrider.models.config import DecoderConfig
from outrider.models.folder import plain_weight, shaped
from outrider.models.gguf_blocks import nibbles
from outrider.models.head_config import HeadConfig, usual_layers
from outrider.models.head_file import PICKLED, SAFETENSORS, HeadFile, tensor_names
from outrider.models.head_kinds import is_drafter, refuse_other_configs, refuse_other_tensors
from outrider.models.json_file import read_json
from outrider.quantization.quantize import convert
from outrider.quantization.slabs import by_rows
from outrider.quantization.weight import GROUP, Format, Weight, plain

SPLIT = tuple(f"midlayer.self_attn.{name}_proj.weight" for name in "qkv")  # [embedding, state]
GATED = tuple(f"midlayer.mlp.{name}_proj.weight" for name in ("gate", "up"))  # computed in one pass
TABLE, OUTPUT, TARGETS, KNOWN = "embed_tokens.weight", "lm_head.weight", "d2t", "t2d"
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)


class HeadCheckpoint:
    """A head in a folder, weights memory-mapped. Raises ModelError for what is missing or broken, and says
    what it is where it is another kind of drafter."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise ModelError(
                f"head {str(path)!r} is not a folder; give one with config.json and {SAFETENSORS}"
            )
        self.path = path
        raw = read_json(path / "config.json")
        refuse_other_configs(raw, str(path / "config.json"))
        file = HeadFile.open(path)
        refuse_other_tensors(file.tensors.keys(), str(file.path))
        self.config = HeadConfig.parse(raw, str(path / "config.json"))
        self._tensors, self._mapped = file.tensors, file.mapped
        self._shapes = self.config.shapes()
        if self.has_table:
            self._shapes[TABLE] = (self.config.decoder.vocab_size, self.config.decoder.hidden_size)
        if not self.has_output:
            del self._shapes[OUTPUT]

    def tensor(self, name: str) -> Tensor:
        """A tensor by its public name, as it is stored."""
        return self._checked(name, self._stored(name), FLOATS, self._shapes[name])

    def weight(self, name: str) -> Weight:
        """A matrix by its public name."""
        if not self._is_quantized(name):
            tensor = self.tensor(name)
            return plain_weight(tensor) if self._mapped else plain(tensor)
        codes, scales = self._quantized(name)
        weight = by_rows(
            len(codes),
            2 * codes.shape[1],
            lambda first, last: Weight("int4", _unpacked(codes[first:last]), scales[first:last]),
        )
        if self._mapped:
            release_pages(codes)
        return weight

    def format(self, name: str) -> Format:
        """The format of `weight(name)`, from the file's header alone."""
        if self._is_quantized(name):
            return "int4"
        return "bfloat16" if self._stored(name).dtype == torch.bfloat16 else "float32"

    @property
    def has_table(self) -> bool:
        """Whether it has an embedding table of its own, and does not share the target's."""
        return TABLE in self._tensors

    @property
    def has_output(self) -> bool:
        """Whether it has an output layer of its own. Else it is the table where config.json ties the two, or
        the target's."""
        return OUTPUT in self._tensors or self._is_quantized(OUTPUT)

    def table(self) -> Weight | None:
        """Its own embedding table, if it has one."""
        return self.weight(TABLE) if self.has_table else None

    def targets(self) -> Tensor:
        """The target's id of each token that the head can say; int64 [draft vocab]."""
        count, vocab = self.config.draft_vocab_size, self.config.decoder.vocab_size
        self._check_tensors()
        offsets = self._tensors.get(TARGETS)
        if offsets is None:
            if count != vocab:
                raise ModelError(f"{self.path}: tensor 'd2t' is missing, and {count} tokens are not {vocab}")
            return torch.arange(vocab)
        offsets = self._checked(TARGETS, offsets, INTEGERS, (count,)).long()
        ids = torch.arange(count) + offsets
        if int(ids.min()) < 0 or int(ids.max()) >= vocab or len(set(ids.tolist())) != count:
            raise ModelError(f"{self.path}: 'd2t' does not lead to {count} different ids below {vocab}")
        known = self._tensors.get(KNOWN)
        if known is not None:
            known = self._checked(KNOWN, known, (torch.bool, *INTEGERS), (vocab,)).bool()
            if int(known.sum()) != count or not known[ids].all():
                raise ModelError(f"{self.path}: 't2d' does not mark the tokens that 'd2t' leads to")
        return ids

    def layers(self, target: DecoderConfig, name: str) -> tuple[int, ...]:
        """The target's layers that it reads. Raises ModelError if it was made for another than `name`, and if
        its tensors are not what its config.json says."""
        config, decoder = self.config, self.config.decoder
        layers = config.state_layers or usual_layers(target.num_layers)
        if config.reads_output:
            layers = (target.num_layers,)

        def shared(own: bool) -> int:
            return target.hidden_size if own else decoder.hidden_size

        facts = {
            "hidden size": (config.target_hidden_size, target.hidden_size),
            "size of shared embeddings": (shared(self.has_table), target.hidden_size),
            "size of the shared output layer": (shared(self.has_output), target.hidden_size),
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
        self._check_tensors()
        return layers

    def _check_tensors(self) -> None:
        """Raises ModelError for a tensor that is missing, of another shape, or not read.

        Nothing of a size that config.json names is made before.
        """
        read = {TARGETS, KNOWN}
        for name in self._shapes:
            if self._is_quantized(name):
                self._quantized(name)
                read |= {f"{name}.codes", f"{name}.scales"}
            else:
                self.tensor(name)
                read.add(name)
        for name in self._tensors:
            if name not in read:
                raise ModelError(
                    f"{self.path}: tensor {name!r} is not read, and may change what the head drafts; "
                    "config.json does not ask for it, or it is of another kind of head"
                )
        gate, up = (self.format(name) for name in GATED)
        if gate != up:
            raise ModelError(f"{self.path}: {GATED[0]} is {gate}, and {GATED[1]} is {up}; they have to agree")
        count, vocab = self.config.draft_vocab_size, self.config.decoder.vocab_size
        if not self.has_output and count != vocab:
            raise ModelError(
                f"{self.path}: tensor {OUTPUT!r} is missing, and an output layer for {count} tokens is not "
                f"the target's, which has {vocab}"
            )

    def _stored(self, name: str) -> Tensor:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise ModelError(f"{self.path}: tensor {name!r} is missing")
        return tensor

    def _is_quantized(self, name: str) -> bool:
        return f"{name}.codes" in self._tensors

    def _quantized(self, name: str) -> tuple[Tensor, Tensor]:
        """Codes and scales of a matrix in 4 bits."""
        if len(self._shapes[name]) != 2:
            raise ModelError(f"{self.path}: tensor {name!r} cannot be in 4 bits; only matrices are")
        rows, columns = self._shapes[name]
        _check_groups(name, columns)
        parts = {"codes": (torch.uint8, columns // 2), "scales": (torch.float16, columns // GROUP)}
        codes, scales = (
            self._checked(f"{name}.{part}", self._stored(f"{name}.{part}"), (dtype,), (rows, width))
            for part, (dtype, width) in parts.items()
        )
        return codes, scales

    def _checked(
        self, name: str, tensor: Tensor, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...]
    ) -> Tensor:
        if tensor.dtype not in dtypes:
            raise ModelError(
                f"{self.path}: tensor {name!r} is of {_short(tensor.dtype)}; it has to be of "
                f"{' or '.join(map(_short, dtypes))}"
            )
        return shaped(self.path, name, tensor, shape)


def save_head(path: Path, config: HeadConfig, tensors: Mapping[str, Tensor], targets: Tensor) -> None:
    """Write a head in the public layout. tensors: by public name; targets: see `HeadCheckpoint.targets`."""
    path.mkdir(parents=True, exist_ok=True)
    known = torch.zeros(config.decoder.vocab_size, dtype=torch.bool)
    known[targets] = True
    maps = {TARGETS: targets - torch.arange(len(targets)), KNOWN: known}
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


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
