"""Mutations of files: of GGUF by its structure, and of any file by its bytes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from gguf.constants import Keys

NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
SMALL_SIZES = (0, 1, 2, 3, 31, 33, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**20)
SIZES = (*SMALL_SIZES, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**61, 2**62 + 1, 2**63 - 1, 2**63, 2**64 - 1)
REALS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e-5, 1e38, float("inf"), float("-inf"), float("nan"), 2.0**31)
WORDS = ("", " ", "x", "none", "yarn", "linear", "llama", "gpt2", "<|im_end|>", "</s>", "<0x41>")
TEXTS = (
    *WORDS,
    "\0",
    "a b",
    "\u2003",
    "\n",
    "\x1b[31m",
    "\xe9",
    "{{ x }}",
    "{% for",
    "A" * 5000,
    "$A",
    "x:1",
)
ARCHITECTURE_KEYS = tuple(
    value.format(arch="llama", dense="dense")
    for group in (Keys.LLM, Keys.Attention, Keys.Rope)
    for name, value in vars(group).items()
    if isinstance(value, str) and not name.startswith("_")
)
OTHER_KEYS = tuple(
    value
    for group in (Keys.General, Keys.Split, Keys.Tokenizer)
    for name, value in vars(group).items()
    if isinstance(value, str) and not name.startswith("_") and "{" not in value
)


@dataclass(frozen=True)
class Value:
    """A value of the metadata; payload: its bytes, which need not agree with `type`."""

    key: bytes
    type: int
    payload: bytes


@dataclass(frozen=True)
class Tensor:
    """As the header describes one; dimensions: columns first."""

    name: bytes
    dimensions: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True)
class GGUF:
    """A file's parts; counts: what the header says of them, if not the truth. data: the tensors' bytes."""

    values: tuple[Value, ...]
    tensors: tuple[Tensor, ...]
    data: bytes = field(repr=False)
    magic: bytes = b"GGUF"
    version: int = 3
    counts: tuple[int, int] | None = None
    alignment: int = 32

    def encode(self) -> bytes:
        counts = self.counts or (len(self.tensors), len(self.values))
        header = self.magic + struct.pack("<IQQ", self.version, *counts)
        header += b"".join(text(v.key) + struct.pack("<I", v.type) + v.payload for v in self.values)
        for tensor in self.tensors:
            header += text(tensor.name) + struct.pack("<I", len(tensor.dimensions))
            header += b"".join(struct.pack("<Q", size) for size in tensor.dimensions)
            header += struct.pack("<IQ", tensor.type, tensor.offset)
        return header + bytes(-len(header) % self.alignment) + self.data


def text(content: bytes) -> bytes:
    return struct.pack("<Q", len(content)) + content


def decode(content: bytes) -> GGUF:
    """The parts of a well-formed file."""
    version, tensor_count, value_count = struct.unpack_from("<IQQ", content, 4)
    at = 24

    def read(format: str) -> Any:
        nonlocal at
        value = struct.unpack_from("<" + format, content, at)[0]
        at += struct.calcsize("<" + format)
        return value

    def read_text() -> bytes:
        nonlocal at
        size = read("Q")
        at += size
        return content[at - size : at]

    def skip(kind: int) -> None:
        if kind == STRING:
            read_text()
        elif kind == ARRAY:
            of, count = read("I"), read("Q")
            for _ in range(count):
                skip(of)
        else:
            read(NUMBERS[kind])

    values = []
    for _ in range(value_count):
        key, kind = read_text(), read("I")
        begin = at
        skip(kind)
        values.append(Value(key, kind, content[begin:at]))
    tensors = []
    for _ in range(tensor_count):
        name, rank = read_text(), read("I")
        dimensions = tuple(read("Q") for _ in range(rank))
        tensors.append(Tensor(name, dimensions, read("I"), read("Q")))
    return GGUF(tuple(values), tuple(tensors), content[at + -at % 32 :], version=version)


def edge_value(draw: random.Random, *, nested: bool = True) -> tuple[int, bytes]:
    """A type and a payload: a number at the edge of something, a text, or a short array."""
    kind = draw.choice((*NUMBERS, STRING, ARRAY) if nested else (*NUMBERS, STRING))
    if kind == STRING:
        return kind, text(draw.choice(TEXTS).encode())
    if kind == ARRAY:
        of, payload = edge_value(draw, nested=draw.random() < 0.2)
        count = draw.choice((0, 1, 2, 3, 300))
        claimed = draw.choice((*[count] * 6, *SIZES))
        return kind, struct.pack("<IQ", of, claimed) + payload * count
    return kind, number(draw, kind)


def number(draw: random.Random, kind: int) -> bytes:
    format = "<" + NUMBERS[kind]
    if NUMBERS[kind] in "fd":
        return struct.pack(format, draw.choice(REALS))
    size = struct.calcsize(format)
    return int.to_bytes(draw.choice(SIZES) % 2 ** (8 * size), size, "little")


Structural = Callable[[random.Random, GGUF], GGUF]


def _changed(draw: random.Random, file: GGUF) -> GGUF:
    """A value becomes another one, of its own type or of any."""
    at = draw.randrange(len(file.values))
    old = file.values[at]
    kind, payload = edge_value(draw)
    if old.type in NUMBERS and draw.random() < 0.7:
        kind, payload = old.type, number(draw, old.type)
    elif old.type == STRING and draw.random() < 0.7:
        kind, payload = STRING, text(draw.choice(TEXTS).encode())
    elif old.type == ARRAY and draw.random() < 0.8:
        kind, payload = ARRAY, _array(draw, old.payload)
    return _with_values(file, at, Value(old.key, kind, payload))


def _array(draw: random.Random, payload: bytes) -> bytes:
    """An array with another number of elements, type of them, or element."""
    of, count = struct.unpack_from("<IQ", payload)
    elements = _elements(payload)
    choice = draw.randrange(5)
    if choice == 0 or not elements:
        return struct.pack("<IQ", of, draw.choice((*SIZES, max(0, count - 1)))) + payload[12:]
    if choice == 1:
        of = draw.choice((*NUMBERS, STRING, ARRAY, 13, 255))
        return struct.pack("<IQ", of, count) + payload[12:]
    at, other = draw.randrange(len(elements)), draw.randrange(len(elements))
    if choice == 2:
        elements[at] = elements[other]
    elif choice == 3:
        del elements[at:other]
    elif of == STRING:
        elements[at] = text(draw.choice(TEXTS).encode())
    else:
        elements[at] = number(draw, of)
    return struct.pack("<IQ", of, len(elements)) + b"".join(elements)


def _elements(payload: bytes) -> list[bytes]:
    """Raises struct.error or KeyError for an array that an earlier change has spoilt."""
    of, count = struct.unpack_from("<IQ", payload)
    at, elements = 12, []
    for _ in range(count):
        size = struct.unpack_from("<Q", payload, at)[0] + 8 if of == STRING else struct.calcsize(NUMBERS[of])
        if at + size > len(payload):
            raise struct.error("shorter than its count")
        elements.append(payload[at : at + size])
        at += size
    return elements


def _added(draw: random.Random, file: GGUF) -> GGUF:
    """A key that the format knows, or one that it does not."""
    keys = (
        ARCHITECTURE_KEYS
        if draw.random() < 0.6
        else (*OTHER_KEYS, "llama.new_key", "", "llama." + "x" * 3000)
    )
    value = Value(draw.choice(keys).encode(), *edge_value(draw))
    return replace(file, values=(*(v for v in file.values if v.key != value.key), value))


def _removed(draw: random.Random, file: GGUF) -> GGUF:
    at = draw.randrange(len(file.values))
    return replace(file, values=file.values[:at] + file.values[at + 1 :])


def _doubled(draw: random.Random, file: GGUF) -> GGUF:
    return replace(file, values=(*file.values, draw.choice(file.values)))


def _reshaped(draw: random.Random, file: GGUF) -> GGUF:
    """A tensor of other dimensions."""
    at = draw.randrange(len(file.tensors))
    dimensions = list(file.tensors[at].dimensions)
    choice = draw.randrange(4)
    if choice == 0:
        dimensions = [draw.choice(SIZES) for _ in range(draw.choice((0, 1, 2, 3, 4, 5, 100)))]
    elif choice == 1:
        dimensions.reverse()
    elif choice == 2:
        dimensions.append(draw.choice((0, 1, 2)))
    else:
        dimensions[draw.randrange(len(dimensions))] = draw.choice(SIZES)
    return _with_tensors(file, at, replace(file.tensors[at], dimensions=tuple(dimensions)))


def _retyped(draw: random.Random, file: GGUF) -> GGUF:
    at = draw.randrange(len(file.tensors))
    kind = draw.choice((*range(45), 2**31, 2**32 - 1))
    return _with_tensors(file, at, replace(file.tensors[at], type=kind))


def _moved(draw: random.Random, file: GGUF) -> GGUF:
    at, other = draw.randrange(len(file.tensors)), draw.choice(file.tensors)
    offset = draw.choice((*SIZES, other.offset, other.offset + 32, len(file.data), len(file.data) - 1))
    return _with_tensors(file, at, replace(file.tensors[at], offset=offset))


def _renamed(draw: random.Random, file: GGUF) -> GGUF:
    at, other = draw.randrange(len(file.tensors)), draw.choice(file.tensors).name
    names = (
        other,
        b"",
        b"blk." + b"9" * 5000 + b".attn_q.weight",
        b"blk.7.attn_q.weight",
        b"rope_freqs.weight",
    )
    name = draw.choice((*names, b"blk.0.attn_q.bias", b"blk.0.attn_q.scale", b"output.weight", b"\xff"))
    return _with_tensors(file, at, replace(file.tensors[at], name=name))


def _dropped(draw: random.Random, file: GGUF) -> GGUF:
    at = draw.randrange(len(file.tensors))
    return replace(file, tensors=file.tensors[:at] + file.tensors[at + 1 :])


def _miscounted(draw: random.Random, file: GGUF) -> GGUF:
    counts = [len(file.tensors), len(file.values)]
    counts[draw.randrange(2)] = draw.choice((*SIZES, counts[0] - 1, counts[1] + 1))
    return replace(file, counts=(counts[0], counts[1]))


def _other_version(draw: random.Random, file: GGUF) -> GGUF:
    return replace(file, version=draw.choice((0, 1, 2, 4, 2**24, 2**25, 3 * 2**24, 2**31, 2**32 - 1)))


def _aligned(draw: random.Random, file: GGUF) -> GGUF:
    value = Value(b"general.alignment", 4, struct.pack("<I", draw.choice((0, 1, 2, 8, 33, 64, 4096, 2**31))))
    return replace(file, values=(*file.values, value))


def _with_values(file: GGUF, at: int, value: Value) -> GGUF:
    return replace(file, values=(*file.values[:at], value, *file.values[at + 1 :]))


def _with_tensors(file: GGUF, at: int, tensor: Tensor) -> GGUF:
    return replace(file, tensors=(*file.tensors[:at], tensor, *file.tensors[at + 1 :]))


STRUCTURAL: tuple[Structural, ...] = (
    *(_changed,) * 8,
    *(_added,) * 4,
    *(_reshaped,) * 2,
    _removed,
    _doubled,
    _retyped,
    _moved,
    _renamed,
    _dropped,
    _miscounted,
    _other_version,
    _aligned,
)


def mutated_gguf(draw: random.Random, seed: bytes) -> bytes:
    """One to three changes of a well-formed file, by its structure or by its bytes."""
    if draw.random() < 0.2:
        return mutated_bytes(draw, seed)
    file = decode(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        if file.values and file.tensors:
            try:
                file = draw.choice(STRUCTURAL)(draw, file)
            except (struct.error, KeyError):  # an array that an earlier change has spoilt
                continue
    return file.encode()


def mutated_bytes(draw: random.Random, content: bytes) -> bytes:
    """Some bytes changed, cut off, left out or put in; mostly near the beginning, where headers are."""
    place = int(len(content) * draw.random() ** 3)
    choice = draw.randrange(4)
    if choice == 0:
        return content[:place]
    if choice == 1:
        return content[:place] + content[place + draw.choice((1, 2, 4, 8, 32, 1000)) :]
    if choice == 2:
        return content[:place] + draw.randbytes(draw.choice((1, 2, 4, 8, 32))) + content[place:]
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 8))):
        at = int(len(content) * draw.random() ** 3)
        changed[at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, changed[at] ^ 1 << draw.randrange(8)))
    return bytes(changed)
