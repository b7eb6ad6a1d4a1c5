"""Tensors of GGUF files as our formats, and models in several files."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize
from numpy.typing import NDArray

from outrider.errors import ModelError
from outrider.formats.registry import FORMATS
from outrider.models.checkpoint import open_checkpoint
from outrider.models.gguf_substitutes import SUBSTITUTES
from outrider.models.gguf_tensors import open_gguf
from outrider.models.leaves import tensors as tensors_of
from outrider.models.stored import MappedTensor, StoredTensor
from tests.cache.test_pool import resident
from tests.models import factories
from tests.models.factories import tiny_config, write_gguf, write_hf

COMPUTED = [name for name in FORMATS if name in GGMLQuantizationType.__members__]
SCALES = {"IQ1_M": None, "TQ1_0": slice(52, 54), "TQ2_0": slice(64, 66), "NVFP4": None}
"""Where float16 scales lie in a block, if not in its first two bytes."""
LOSS = {"IQ1_S": 0.03, "IQ1_M": 0.07, "TQ1_0": 0.0, "TQ2_0": 0.0, "NVFP4": 0.01, "F64": 0.0}


def random_blocks(name: str, rows: int, blocks: int) -> NDArray[np.uint8]:
    """Any bytes are blocks; scales are made small numbers, and ternary codes ones that llama.cpp writes."""
    random, size = np.random.default_rng(0), int(GGML_QUANT_SIZES[GGMLQuantizationType[name]][1])
    if name == "F64":
        return random.normal(size=(rows, blocks)).view(np.uint8)
    data = random.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    if name == "TQ2_0":
        codes = random.integers(0, 3, (rows, blocks, 64, 4), dtype=np.uint8)
        data[..., :64] = (codes << np.array([0, 2, 4, 6], np.uint8)).sum(-1)
    if name == "NVFP4":
        data[..., :4] = random.integers(1, 0x60, (rows, blocks, 4))
    place = SCALES.get(name, slice(0, 2))
    if place is not None:
        drawn = random.uniform(0.001, 0.01, (rows, blocks, 1)).astype("<f2")
        data[..., place] = drawn.view(np.uint8)
    if name == "IQ1_M":
        data[..., [49, 51, 53, 55]] = data[..., [49, 51, 53, 55]] & 15 | np.array([0, 0, 0, 0x20], np.uint8)
    return data.reshape(rows, -1)


def write(
    path: Path, tensors: dict[str, tuple[NDArray[Any], str]], metadata: dict[str, int] | None = None
) -> Path:
    """A GGUF file of these tensors: bytes as they are stored, and their type."""
    writer = GGUFWriter(path, "llama")
    for key, value in (metadata or {}).items():
        writer.add_int32(key, value)
    for name, (data, type) in tensors.items():
        writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType[type])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def only(path: Path) -> StoredTensor:
    (stored,) = open_gguf(path).tensors.values()
    return stored


@pytest.mark.parametrize("name", COMPUTED)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # any bytes are scales: some are infinite
def test_types_that_are_computed_with_are_taken_as_they_lie(tmp_path: Path, name: str) -> None:
    format = FORMATS[name]
    data = np.random.default_rng(0).integers(0, 256, (6, 3 * format.size), dtype=np.uint8)
    stored = only(write(tmp_path / "m.gguf", {"blk.0.ffn_up.weight": (data, name)}))
    assert (stored.name, stored.shape) == ("blk.0.ffn_up.weight", (6, 3 * format.block))
    assert stored.format is format
    assert stored.file == tmp_path / "m.gguf"
    weight = stored.weight()
    np.testing.assert_array_equal(weight.data, data)
    assert isinstance(stored, MappedTensor)
    assert np.shares_memory(weight.data, stored.data)
    assert not weight.data.flags.owndata
    np.testing.assert_array_equal(stored.floats(), dequantize(data, GGMLQuantizationType[name]))


@pytest.mark.parametrize("name", SUBSTITUTES)
def test_types_without_a_kernel_become_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    data = random_blocks(name, 5, 2)
    tensors = {f"blk.{layer}.ffn_up.weight": (data, name) for layer in range(2)}
    file = open_gguf(write(tmp_path / "m.gguf", tensors))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("outrider")]
    assert said == [f"{tmp_path / 'm.gguf'}: tensors of type {name} become {SUBSTITUTES[name]}"]
    stored = file.tensors["blk.1.ffn_up.weight"]
    assert stored.format is stored.weight().format is FORMATS[SUBSTITUTES[name]]
    expected = data.view("<f8") if name == "F64" else dequantize(data, GGMLQuantizationType[name])
    assert np.abs(expected).min(axis=1).max() < np.abs(expected).max()
    error = np.sqrt(np.square(stored.floats() - expected).mean() / np.square(expected).mean())
    assert error <= LOSS.get(name, 0.07) + (1e-7 if name == "F64" else 0)


def test_ternary_blocks_of_zeros_and_of_one_sign(tmp_path: Path) -> None:
    data = random_blocks("TQ2_0", 3, 1)
    data[0, :64], data[1, :64] = 0b01010101, 0b10101010  # all zero, all one
    data[2, 64:] = 0  # the scale
    stored = only(write(tmp_path / "m.gguf", {"x.weight": (data, "TQ2_0")}))
    np.testing.assert_array_equal(stored.floats(), dequantize(data, GGMLQuantizationType.TQ2_0))


def test_stacks_and_vectors(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    tensors = {"blk.0.ffn_up_exps.weight": (values, "F32"), "output_norm.weight": (values[0, 0], "F32")}
    experts, norm = open_gguf(write(tmp_path / "m.gguf", tensors)).tensors.values()
    assert experts.shape == (3, 4, 5)
    assert experts.weight().shape == (12, 5)
    np.testing.assert_array_equal(experts.floats(), values)
    assert norm.shape == (5,)
    np.testing.assert_array_equal(norm.floats(), values[0, 0])


def test_a_tensor_that_is_no_weight_is_refused_where_it_is_used(tmp_path: Path) -> None:
    tensors = {"x": (np.arange(4, dtype=np.int32), "I32"), "y": (np.ones(4, np.float32), "F32")}
    file = open_gguf(write(tmp_path / "m.gguf", tensors))
    assert file.tensors["y"].floats().tolist() == [1] * 4
    said = r"m\.gguf: tensor 'x' is of type I32; supported are F32, F16, BF16, Q8_0"
    with pytest.raises(ModelError, match=said):
        _ = file.tensors["x"].format
    with pytest.raises(ModelError, match=said):
        file.tensors["x"].weight()
    with pytest.raises(ModelError, match=said):
        file.tensors["x"].floats()


@pytest.mark.skipif(sys.platform != "linux", reason="pages are freed on Linux only")
def test_pages_of_a_file_are_given_back_and_read_again(tmp_path: Path) -> None:
    data = np.random.default_rng(0).integers(0, 255, (1024, 2**15), dtype=np.uint8)
    data = data[:, : 2**15 // 34 * 34]
    stored = only(write(tmp_path / "m.gguf", {"x.weight": (data, "Q8_0")}))
    before = resident()
    assert stored.weight().data.max() == data.max()
    read = resident()
    assert read - before > 2**24
    stored.release()
    assert read - resident() > 2**24
    np.testing.assert_array_equal(stored.weight().data, data)


# Models in several files


def write_split(folder: Path, count: int = 3, names: str = "m-{number:05}-of-{count:05}.gguf") -> list[Path]:
    """A model of two tensors in each part, as llama-gguf-split writes it."""
    paths = []
    for number in range(count):
        path = folder / names.format(number=number + 1, count=count)
        keys = {"split.no": number, "split.count": count, "split.tensors.count": 2 * count}
        own = {"general.quantization_version": 2} if number == 0 else {}
        tensors = {f"blk.{number}.{part}": (np.full(4, number, np.float32), "F32") for part in ("a", "b")}
        paths.append(write(path, tensors, keys | own))
    return paths


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_gguf(path)
    said = str(caught.value)
    assert said.splitlines() == [said]
    return said


@pytest.mark.parametrize("part", range(3))
def test_any_part_opens_the_whole_model(tmp_path: Path, part: int) -> None:
    paths = write_split(tmp_path)
    file = open_gguf(paths[part])
    assert file.path == paths[0]
    assert file.metadata["general.quantization_version"] == 2
    assert [*file.tensors] == [f"blk.{number}.{part}" for number in range(3) for part in ("a", "b")]
    for number, path in enumerate(paths):
        stored = file.tensors[f"blk.{number}.b"]
        assert stored.file == path
        assert stored.floats().tolist() == [number] * 4


def test_a_split_model_is_the_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the gguf library splits it."""
    model = write_hf(tmp_path / "hf", tiny_config(num_hidden_layers=1))
    held = write_gguf(tmp_path / "m.gguf", model, None)
    monkeypatch.setattr(factories, "GGUFWriter", partial(GGUFWriter, split_max_tensors=5))
    write_gguf(tmp_path / "s.gguf", model, None)
    parts = sorted(tmp_path.glob("s-*-of-00003.gguf"))
    assert len(parts) == 3
    whole, split = open_checkpoint(str(tmp_path / "m.gguf")), open_checkpoint(str(parts[2]))
    assert split.config == whole.config
    tensors = list(tensors_of(whole.config.tree))
    assert len(tensors) == len(held)
    for tensor in tensors:
        np.testing.assert_array_equal(split.floats(tensor), whole.floats(tensor))


def test_a_model_in_one_part(tmp_path: Path) -> None:
    (path,) = write_split(tmp_path, count=1)
    assert len(open_gguf(path).tensors) == 2
    plain = write(tmp_path / "n-00002-of-00003.gguf", {"x": (np.ones(4, np.float32), "F32")})
    assert len(open_gguf(plain).tensors) == 1  # its name says more than it does


def test_links_of_the_hub_lead_to_files_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    for number, path in enumerate(write_split(tmp_path)):
        path.rename(tmp_path / "blobs" / str(number))
        path.symlink_to(tmp_path / "blobs" / str(number))
    assert len(open_gguf(tmp_path / "m-00002-of-00003.gguf").tensors) == 6


def test_a_part_is_missing(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    paths[1].unlink()
    assert refusal(paths[2]) == f"{paths[1]} is missing; {paths[2].name} is one of 3 parts of a model"
    paths[0].unlink()
    assert refusal(paths[2]).startswith(f"{paths[0]} is missing, and 1 more; ")


def test_a_part_is_truncated(tmp_path: Path) -> None:
    paths = write_split(tmp_path)
    whole = paths[1].read_bytes()
    paths[1].write_bytes(whole[:-40])
    assert refusal(paths[0]).startswith(f"{paths[1]} is truncated or corrupt")


@pytest.mark.parametrize("name", ["m.gguf", "m-00002-of-00004.gguf", "m-2-of-3.gguf"])
def test_a_part_of_another_name(tmp_path: Path, name: str) -> None:
    path = write_split(tmp_path)[1].rename(tmp_path / name)
    assert "is one of 3 parts of a model (split.count); the names of the parts have to end in" in refusal(
        path
    )


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"split.no": 2}, "split.no = 2, but its name says part 2"),
        ({"split.count": 4}, "split.count = 4, but m-00001-of-00003.gguf is one of 3 parts"),
        (
            {"split.tensors.count": 7},
            "split.tensors.count = 7, but the 3 parts hold 6; one is of another model",
        ),
        ({"split.no": -1}, "split.no = -1; it has to be a whole number"),
        ({"split.count": None}, "split.count = None; it has to be a whole number"),
        ({"split.tensors.count": None}, "split.tensors.count = None; it has to be"),
    ],
)
def test_a_part_of_another_model(tmp_path: Path, keys: dict[str, int | None], said: str) -> None:
    first, second, _ = write_split(tmp_path)
    right = {"split.no": 1, "split.count": 3, "split.tensors.count": 6} | keys
    tensors = {f"blk.1.{part}": (np.ones(4, np.float32), "F32") for part in ("a", "b")}
    write(second, tensors, {key: value for key, value in right.items() if value is not None})
    assert refusal(first).startswith(f"{second}: {said}")


def test_a_tensor_is_in_two_parts(tmp_path: Path) -> None:
    first, second, _ = write_split(tmp_path)
    tensors = {name: (np.ones(4, np.float32), "F32") for name in ("blk.0.b", "blk.1.a")}
    write(second, tensors, {"split.no": 1, "split.count": 3, "split.tensors.count": 6})
    assert re.search(r"00002.*tensor 'blk\.0\.b' is in m-00001-of-00003\.gguf too", refusal(first))
