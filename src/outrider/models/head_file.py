"""The tensors of a head on disk: model.safetensors, or pytorch_model.bin, by their public names.

A matrix may be stored in 4 bits, which only this package reads: instead of `X.weight` there are
`X.weight.codes`, uint8 [out, in / 2] with the first half of each 32 inputs in the low nibbles, and
`X.weight.scales`, float16 [out, in / 32]: the parts of the format Q4_0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from outrider.errors import ModelError
from outrider.extras import TORCH
from outrider.formats.encode import rows_of
from outrider.formats.grouped import GROUP, Q4_0
from outrider.formats.weight import Weight
from outrider.models.shards import RawTensor, open_safetensors
from outrider.models.stored import MadeTensor, StoredTensor

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
CODES, SCALES = ".codes", ".scales"
LAYER = "midlayer."
OTHER_LAYER = "layers.0."  # Speculators' and vLLM's name of the same
BUFFERS = "rotary_emb.inv_freq"  # end of a name; config.json says the same
OF_TARGET = "verifier_"  # beginning of names: of copies that Speculators trains with


@dataclass(frozen=True)
class HeadFile:
    """What a file holds, by the names of the EAGLE repository.

    mapped: whether tensors lie in the file, and are read from it again after their pages were given back.
    """

    path: Path
    tensors: Mapping[str, RawTensor]
    mapped: bool

    @classmethod
    def open(cls, folder: Path) -> HeadFile:
        """Raises ModelError for what is missing, broken, or no file of tensors, and for a pickle without
        PyTorch."""
        single, pickled = folder / SAFETENSORS, folder / PICKLED
        if single.is_file():
            return cls(single, _named(open_safetensors(single).values(), single), mapped=True)
        if not pickled.is_file():
            raise ModelError(f"{folder} holds neither {SAFETENSORS} nor {PICKLED}")
        TORCH.require(f"reading {str(pickled)!r}", ModelError)
        from outrider.models.pickled import open_pickled

        raw, mapped = open_pickled(pickled)
        return cls(pickled, _named(raw, pickled), mapped)

    def weights(self) -> dict[str, StoredTensor]:
        """Every tensor as a weight. One that is none raises ModelError when it is used.

        Raises ModelError for a matrix of 4 bits whose codes and scales do not fit each other.
        """
        found = {name: raw.stored() for name, raw in self.tensors.items()}
        for name in self._ending(CODES) & self._ending(SCALES):
            if name in found:
                raise ModelError(f"{self.path}: tensor {name!r} is there twice, in 4 bits too")
            found[name] = _four_bits(name, self.tensors[name + CODES], self.tensors[name + SCALES])
            del found[name + CODES], found[name + SCALES]
        return found

    def _ending(self, end: str) -> set[str]:
        return {name.removesuffix(end) for name in self.tensors if name.endswith(end)}


def tensor_names(folder: Path) -> set[str]:
    """Names in a folder's safetensors as they are stored, from the header alone; none where there is none."""
    try:
        return set(open_safetensors(folder / SAFETENSORS))
    except ModelError:
        return set()


def _four_bits(name: str, codes: RawTensor, scales: RawTensor) -> StoredTensor:
    rows, groups = scales.shape if len(scales.shape) == 2 else (0, 0)
    if (codes.dtype, codes.shape, scales.dtype) != ("U8", (rows, groups * GROUP // 2), "F16"):
        raise ModelError(
            f"{codes.file}: tensor {name!r} cannot be in 4 bits: codes are {codes.dtype} {codes.shape} and "
            f"scales {scales.dtype} {scales.shape}; give U8 [out, in / 2] and F16 [out, in / {GROUP}]"
        )
    make, sources = partial(_blocks, codes, scales), [codes.data, scales.data]
    return MadeTensor(name, (rows, groups * GROUP), Q4_0, codes.file, make, sources)


def _blocks(codes: RawTensor, scales: RawTensor) -> Weight:
    """Codes are in the order of Q4_0's already."""
    grouped = codes.array().reshape(*scales.shape, GROUP // 2)
    return Weight(Q4_0, rows_of(scales.array(), grouped), scales.shape[1] * GROUP)


def _named(tensors: Iterable[RawTensor], file: Path) -> dict[str, RawTensor]:
    """Each tensor with its public name, without those that only repeat config.json or the target."""
    found: dict[str, RawTensor] = {}
    for raw in tensors:
        name = raw.name.removeprefix("model.")
        if name.startswith(OTHER_LAYER):
            name = LAYER + name.removeprefix(OTHER_LAYER)
        if name in found:
            raise ModelError(f"{file}: tensor {raw.name!r} is there twice, under another name too")
        found[name] = replace(raw, name=name)
    return {
        name: raw
        for name, raw in found.items()
        if not name.endswith(BUFFERS) and not name.startswith(OF_TARGET)
    }
