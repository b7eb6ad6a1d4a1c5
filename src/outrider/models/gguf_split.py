"""GGUF models in several files, as `llama-gguf-split` of llama.cpp names and writes them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from outrider.errors import ModelError
from outrider.messages import shown
from outrider.models.gguf_header import GGUFHeader, read_header

PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.gguf)", re.IGNORECASE)
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"


def read_parts(path: Path) -> list[GGUFHeader]:
    """The headers of all the files of a model, of which `path` is any. Raises ModelError."""
    header = read_header(path)
    count = _whole(header, COUNT) if COUNT in header.metadata else 1
    if count <= 1:
        return [header]
    headers = [header if part == path else read_header(part) for part in _paths(path, count)]
    for number, part in enumerate(headers):
        _expect(part, NUMBER, number, f"its name says part {number + 1}")
        _expect(part, COUNT, count, f"{path.name} is one of {count} parts")
    _check_tensors(headers)
    return headers


def part_names(name: str, count: int | None = None) -> list[str]:
    """Names of all the parts of a model, from that of any; the name alone if it is not one of a part.

    count: how many there are to be. Raises ValueError where the name does not say so.
    """
    found = PART.fullmatch(name)
    if found is None or int(found["count"]) < 1:
        if count is not None:
            raise ValueError(name)
        return [name]
    if count is not None and int(found["count"]) != count:
        raise ValueError(name)
    numbers = range(1, int(found["count"]) + 1)
    return [f"{found['stem']}-{number:05}-of-{found['count']}{found['suffix']}" for number in numbers]


def _paths(path: Path, count: int) -> list[Path]:
    try:
        paths = [path.with_name(name) for name in part_names(path.name, count)]
    except ValueError:
        raise ModelError(
            f"{path} is one of {count} parts of a model ({COUNT}); the names of the parts have to end in "
            f"-00001-of-{count:05}.gguf to -{count:05}-of-{count:05}.gguf"
        ) from None
    missing = [part for part in paths if not part.is_file()]
    if missing:
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{missing[0]} is missing{more}; {path.name} is one of {count} parts of a model")
    return paths


def _check_tensors(headers: list[GGUFHeader]) -> None:
    """As many as each part says, and each of them once."""
    total = sum(len(header.tensors) for header in headers)
    seen: dict[str, Path] = {}
    for header in headers:
        _expect(header, TENSORS, total, f"the {len(headers)} parts hold {total}; one is of another model")
        for name in header.tensors:
            if name in seen:
                raise ModelError(
                    f"{header.path}: tensor {shown(name)} is in {seen[name].name} too; one is another model's"
                )
            seen[name] = header.path


def _expect(header: GGUFHeader, key: str, right: int, why: str) -> None:
    value = _whole(header, key)
    if value != right:
        raise ModelError(f"{header.path}: {key} = {value}, but {why}")


def _whole(header: GGUFHeader, key: str) -> int:
    value: Any = header.metadata.get(key)
    if type(value) is not int or value < 0:
        raise ModelError(f"{header.path}: {key} = {shown(value)}; it has to be a whole number")
    return value
