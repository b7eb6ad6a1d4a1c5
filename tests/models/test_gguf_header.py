"""A GGUF file's header is not believed before it is looked at, and a file is what its first bytes say."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from outrider.errors import ModelError
from outrider.models import gguf_magic
from outrider.models.checkpoint import open_checkpoint
from outrider.models.gguf_header import MOST_ELEMENTS, MOST_TENSORS
from tests.fuzz.mutate import ARRAY, GGUF, STRING, Value, decode, text
from tests.models.factories import tiny_config, write_gguf, write_hf

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
BYTE, UINT32 = 0, 4
Change = Callable[[GGUF], GGUF]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> GGUF:
    folder = tmp_path_factory.mktemp("plain")
    write_gguf(folder / "m.gguf", write_hf(folder / "hf", tiny_config(**SMALL)), None)
    return decode((folder / "m.gguf").read_bytes())


def refusal(file: Path, content: bytes) -> str:
    file.write_bytes(content)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(file))
    said = str(caught.value)
    assert said.startswith(str(file))
    assert said.splitlines() == [said]
    assert len(said) < 600
    return said


def with_value(kind: int, payload: bytes, key: bytes = b"general.x") -> Change:
    return lambda file: replace(file, values=(*file.values, Value(key, kind, payload)))


def array(of: int, count: int, payload: bytes = b"") -> bytes:
    return struct.pack("<IQ", of, count) + payload


def with_tensor(**changes: object) -> Change:
    """The last tensor is another one."""
    return lambda file: replace(
        file,
        tensors=(*file.tensors[:-1], replace(file.tensors[-1], **changes)),  # type: ignore[arg-type]
    )


def with_alignment(alignment: int) -> Change:
    return with_value(UINT32, struct.pack("<I", alignment), b"general.alignment")


def over_another_one(file: GGUF) -> GGUF:
    return with_tensor(offset=file.tensors[0].offset)(file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            with_value(STRING, struct.pack("<Q", 2**64 - 1)),
            "metadata 'general.x': 18446744073709551615 bytes",
        ),
        (with_value(STRING, text(b"\xff")), "metadata 'general.x': the string at byte"),
        (with_value(STRING, text(b""), b"\xff"), "is not UTF-8"),
        (with_value(13, b""), "metadata 'general.x': it is of type 13; there is no such type"),
        (with_value(ARRAY, array(13, 1)), "metadata 'general.x': it is of type 13"),
        (with_value(ARRAY, array(BYTE, 2**20)), "metadata 'general.x': 1048576 bytes are to follow"),
        (with_value(ARRAY, array(BYTE, 2**63)), f"9223372036854775808 in all; {MOST_ELEMENTS} are the most"),
        (with_value(ARRAY, array(STRING, MOST_ELEMENTS + 1)), f"{MOST_ELEMENTS} are the most"),
        (with_value(ARRAY, array(STRING, 2**20)), "metadata 'general.x': "),
        (with_value(ARRAY, array(STRING, 2, text(b"a") + text(b"\xff"))), "the string at byte"),
        (
            with_value(ARRAY, array(STRING, 2, text(b"a") + struct.pack("<Q", 2**64 - 1))),
            "metadata 'general.x': 18446744073709551615 bytes",
        ),
        (with_value(ARRAY, array(ARRAY, 2**20)), "an array of arrays"),
        (with_value(ARRAY, array(ARRAY, 1, array(ARRAY, 1) * 10**4)), "an array of arrays"),
        (
            with_value(UINT32, bytes(4), b"llama.block_count"),
            "the key 'llama.block_count' stands there twice",
        ),
        (
            lambda file: replace(file, counts=(2**40, 1)),
            f"1099511627776 tensors; {MOST_TENSORS} are the most",
        ),
        (lambda file: replace(file, counts=(0, 2**60)), "is truncated or corrupt"),
        (lambda file: replace(file, version=1), "it is of version 1; supported are 2, 3"),
        (lambda file: replace(file, version=4), "it is of version 4"),
        (lambda file: replace(file, version=3 << 24), "it is big-endian; convert it with"),
        (with_tensor(dimensions=()), "has 0 dimensions; there can be 1 to 4"),
        (with_tensor(dimensions=(1,) * 5), "has 5 dimensions"),
        (with_tensor(dimensions=(0, 16)), "of shape (16, 0) does not divide into blocks"),
        (with_tensor(dimensions=(2**62, 2**62, 2**62)), "ends at byte"),
        (with_tensor(type=4), "is of type number 4, which is not known"),
        (with_tensor(type=33), "is of type Q4_0_8_8, which llama.cpp has given up; get the model as Q4_0"),
        (with_tensor(offset=2**64 - 32), "ends at byte"),
        (with_tensor(offset=1), "which is not a multiple of general.alignment = 32"),
        (over_another_one, "overlap"),
        (lambda file: replace(file, tensors=(*file.tensors, file.tensors[0])), "is there twice"),
        (with_alignment(0), "general.alignment = 0; it has to be a power of two"),
        (with_alignment(33), "general.alignment = 33; it has to be a power of two"),
        (with_alignment(2**31), "ends at byte"),
    ],
)
def test_what_a_header_may_say(tmp_path: Path, plain: GGUF, change: Change, said: str) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(plain.encode())
    open_checkpoint(str(file))
    file.unlink()
    assert said in refusal(file, change(plain).encode())


@pytest.mark.parametrize("version", [1, 4, 3 << 24])
def test_a_file_of_another_form_is_not_called_corrupt(tmp_path: Path, plain: GGUF, version: int) -> None:
    said = refusal(tmp_path / "m.gguf", replace(plain, version=version).encode())
    assert said.startswith(f"{tmp_path / 'm.gguf'} cannot be used: it is ")


def test_names_are_shortened(tmp_path: Path, plain: GGUF) -> None:
    name = b"blk." + b"9" * 10**5 + b"\n.attn_q.weight"
    refusal(tmp_path / "tensor.gguf", with_tensor(name=name)(plain).encode())
    change = with_value(STRING, text(b"a\n" * 10**5), b"llama.\n" + b"x" * 10**5)
    refusal(tmp_path / "key.gguf", change(plain).encode())
    change = with_value(STRING, text(b"a\n" * 10**5), b"general.type")
    refusal(tmp_path / "value.gguf", change(plain).encode())


def test_a_vector_where_a_matrix_is_needed(tmp_path: Path, plain: GGUF) -> None:
    first, *others = plain.tensors
    assert first.name == b"token_embd.weight"
    vector = replace(first, dimensions=(int(np.prod(first.dimensions)),))
    said = refusal(tmp_path / "m.gguf", replace(plain, tensors=(vector, *others)).encode())
    assert "'token_embd.weight' has shape" in said
    assert "it has to be a matrix" in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is truncated or corrupt: it is empty"),
        (b"tjgg" + bytes(100), "is of the format GGJT, which GGUF has replaced"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<html>", "is a web page, not a model"),
        (b"<html lang='en'>", "is a web page, not a model"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(tmp_path / "m.gguf", content)


def test_a_file_that_may_not_be_read_is_not_called_corrupt(
    tmp_path: Path, plain: GGUF, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path, size: int) -> bytes:
        raise PermissionError(13, "Permission denied")

    blob = tmp_path / "sha256-00"
    blob.write_bytes(plain.encode())
    monkeypatch.setattr(gguf_magic, "_head", denied)
    with pytest.raises(ModelError, match=r"sha256-00' cannot be read: Permission denied"):
        open_checkpoint(str(blob))
