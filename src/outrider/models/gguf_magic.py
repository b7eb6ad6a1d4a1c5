"""What a file is, by its first bytes and not by its name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from outrider.errors import ModelError
from outrider.messages import reason

MAGIC = b"GGUF"
HEAD = 8  # bytes of the magic number and the version
OLDER = {b"lmgg": "GGML", b"fmgg": "GGMF", b"tjgg": "GGJT", b"algg": "GGLA"}
LFS = b"version https://git-lfs"
PAGES = (b"<!doctype", b"<html")


def is_gguf(path: Path) -> bool:
    """Whether a file says that it is GGUF, in its name or, as Ollama's blobs do, in its first bytes."""
    return path.suffix.lower() == ".gguf" or _begins(path)


def _begins(path: Path) -> bool:
    head = _head(path, HEAD)
    return len(head) == HEAD and head.startswith(MAGIC)


def foreign(path: Path) -> str | None:
    """What a file is that is known not to be GGUF, and what to do about it; None for any other."""
    head = _head(path, max(len(LFS), 64))
    if head[:4] in OLDER:
        return f"is of the format {OLDER[head[:4]]}, which GGUF has replaced; get the model as GGUF"
    if head.startswith(LFS):
        return "is a pointer of Git LFS in place of the file; run `git lfs pull` where it lies"
    if head.lstrip().lower().startswith(PAGES):
        return "is a web page, not a model; download the file that the page shows"
    return None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the reader of a GGUF file and the libraries below raise, any of Python's errors, into a
    ModelError of one line."""
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


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as file:
        return file.read(size)
