"""A file that keeps texts across restarts, as tokens of one vocabulary.

Layout, little-endian: `MAGIC`; SHA-256 of the vocabulary; SHA-256 of the rest; and, compressed by zlib, for
each group the length of its salt's hash (0 or 32), that hash, a count of texts, and for each its length and
its tokens. Counts, lengths and tokens have 32 bits.
"""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np

from outrider.drafting.vocabulary import Vocabulary
from outrider.errors import ConfigError
from outrider.faults import Faults

logger = logging.getLogger(__name__)

MAGIC = b"outrider texts 1\n"
DIGEST = 32  # bytes
Texts = tuple[bytes, Sequence[Sequence[int]]]
"""The hash of a salt, empty without one, and texts, the oldest first."""


class SuffixFile:
    """Texts of one vocabulary in a file, which its owner alone may read. Of several processes that share one
    the last to save wins. Raises ConfigError where there can be no such file.
    """

    def __init__(self, path: Path, vocabulary: Vocabulary) -> None:
        words = sorted(vocabulary.tokens.items())
        self._path = path
        self._vocabulary = sha256(repr(words).encode("utf-8", "surrogatepass")).digest()
        self._size = vocabulary.rows
        self._writing = threading.Lock()
        self._writer: threading.Thread | None = None
        self._faults = Faults(logger)
        if not path.parent.is_dir():
            raise ConfigError(
                f"suffix_file = {str(path)!r}: there is no folder {str(path.parent)!r}; make it"
            )

    def load(self) -> list[Texts]:
        """What was saved, nothing where there is no file yet. A damaged file gives nothing, and the log says
        so. Raises ConfigError for one of another kind or of another vocabulary, which saving would replace.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ConfigError(
                f"suffix_file = {str(self._path)!r} cannot be read: {error.strerror}"
            ) from error
        if not data:
            return []
        if not data.startswith(MAGIC):
            raise ConfigError(
                f"suffix_file = {str(self._path)!r} is not a file of Outrider's texts; name another one, "
                "which need not exist"
            )
        source = BytesIO(data[len(MAGIC) :])
        vocabulary, checksum, packed = source.read(DIGEST), source.read(DIGEST), source.read()
        if checksum != sha256(packed).digest():
            logger.warning(
                "suffix_file %s is damaged, so that it is not read and will be replaced", self._path
            )
            return []
        if vocabulary != self._vocabulary:
            raise ConfigError(
                f"suffix_file = {str(self._path)!r} has texts of another vocabulary; give each model a file "
                "of its own"
            )
        return self._unpacked(zlib.decompress(packed))

    def save(self, texts: Callable[[], Sequence[Texts]]) -> None:
        """Replace the file, all at once. What keeps it from being written is told of once."""
        with self._writing, self._faults.tolerated("the texts of finished requests could not be saved"):
            packed = zlib.compress(_packed(texts()), 1)
            whole = MAGIC + self._vocabulary + sha256(packed).digest() + packed
            beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            beside.touch(mode=0o600)
            beside.write_bytes(whole)
            beside.replace(self._path)

    def save_aside(self, texts: Callable[[], Sequence[Texts]]) -> None:
        """The same in another thread, once the last one is through."""
        self.wait()
        self._writer = threading.Thread(target=self.save, args=(texts,), name="saving texts")
        self._writer.start()

    def wait(self) -> None:
        """Until what is being saved is written."""
        if self._writer is not None:
            self._writer.join()

    def _unpacked(self, data: bytes) -> list[Texts]:
        source, groups = BytesIO(data), list[Texts]()

        def numbers(count: int) -> list[int]:
            return [*map(int, np.frombuffer(source.read(4 * count), "<u4"))]

        while head := source.read(1):
            salt = source.read(head[0])
            (count,) = numbers(1)
            texts = []
            for _ in range(count):
                (length,) = numbers(1)
                texts.append([token for token in numbers(length) if token < self._size])
            groups.append((salt, texts))
        return groups


def _packed(groups: Sequence[Texts]) -> bytes:
    parts = list[bytes]()
    for salt, texts in groups:
        parts += [bytes([len(salt)]), salt, np.array(len(texts), "<u4").tobytes()]
        for text in texts:
            parts += [np.array(len(text), "<u4").tobytes(), np.array(text, "<u4").tobytes()]
    return b"".join(parts)
