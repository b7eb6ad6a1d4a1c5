"""Broken folders: seeded changes to the JSON files and to the header of the safetensors of a checkpoint."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EDGES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    2**63,
    2**70,
    10**400,
    0.5,
    -0.0,
    1e-320,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "16",
    "false",
    "\0",
    "../x",
    "/x",
    "a\nb",
    "\ud800",
    "x" * 5000,
    [],
    [[]],
    [2, "2"],
    [-1],
    [None],
    {},
    {"": {}},
    {"rope_type": []},
)
"""Values at the borders of types, sizes and texts."""
Spot = tuple[Any, Any]  # a dict or list, and a key or index of it
HEADER = 8  # bytes of the length before the header of safetensors


def mutated(value: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A copy of a JSON object with one to three changes."""
    copy: dict[str, Any] = json.loads(json.dumps(value))
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        spots = list(_spots(copy))
        if spots:
            draw.choice(CHANGES)(spots, draw)
    return copy


def mutate_json(file: Path, draw: random.Random) -> None:
    """Change values of a JSON file, or now and then its bytes."""
    before = file.read_bytes()
    if draw.random() < 0.1:
        file.write_bytes(_garbled(before, draw))
        return
    changed = json.dumps(mutated(json.loads(before), draw))
    if draw.random() < 0.1:
        depth = draw.choice((500, 5000, 100_000))
        changed = changed[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    elif draw.random() < 0.1:
        changed = changed[:-1] + ", " + changed[1:]  # every key twice
    file.write_text(changed, encoding="utf-8")


def mutate_safetensors(file: Path, draw: random.Random) -> None:
    """Change the header of a safetensors file, its length, or where the file ends."""
    whole = file.read_bytes()
    size = int.from_bytes(whole[:HEADER], "little")
    header, data = whole[HEADER : HEADER + size], whole[HEADER + size :]
    if draw.random() < 0.8:
        header = json.dumps(mutated(json.loads(header), draw)).encode()
    else:
        header = _garbled(header, draw)
    length = draw.choice((len(header),) * 8 + (0, len(header) - 1, 2**40, 2**64 - 1))
    if draw.random() < 0.1:
        data = data[: draw.randrange(len(data) + 1)]
    file.unlink()  # it may be mapped
    file.write_bytes(length.to_bytes(HEADER, "little") + header + data)


def _spots(value: Any) -> Iterator[Spot]:
    """Every place in a JSON value."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys)[:200]:
        yield value, key
        yield from _spots(value[key])


def _replace(spots: list[Spot], draw: random.Random) -> None:
    owner, key = draw.choice(spots)
    owner[key] = draw.choice(EDGES)


def _delete(spots: list[Spot], draw: random.Random) -> None:
    owner, key = draw.choice(spots)
    del owner[key]


def _swap(spots: list[Spot], draw: random.Random) -> None:
    (a, i), (b, j) = draw.choice(spots), draw.choice(spots)
    a[i], b[j] = json.loads(json.dumps((b[j], a[i])))


def _add(spots: list[Spot], draw: random.Random) -> None:
    owner, key = draw.choice(spots)
    if isinstance(owner, dict):
        owner[draw.choice(("extra", "", "rope_scaling", "quantization_config", key + "x"))] = draw.choice(
            EDGES
        )
    else:
        owner.append(draw.choice(EDGES))


CHANGES: tuple[Callable[[list[Spot], random.Random], None], ...] = (
    _replace,
    _replace,
    _replace,
    _delete,
    _swap,
    _add,
)


def _garbled(content: bytes, draw: random.Random) -> bytes:
    """Bytes cut, flipped or doubled."""
    at = draw.randrange(len(content) + 1)
    kind = draw.randrange(3)
    if kind == 0:
        return content[:at]
    if kind == 1 and at < len(content):
        return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
    return content[:at] + content
