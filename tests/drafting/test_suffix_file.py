"""Texts that outlive the engine, and files that cannot be theirs."""

from __future__ import annotations

import gc
import logging
import stat
from pathlib import Path

import pytest

from outrider.drafting.suffix import SuffixDrafter
from outrider.drafting.suffix_file import MAGIC, SuffixFile
from outrider.drafting.suffix_store import SAVE_EVERY, SuffixStore
from outrider.drafting.vocabulary import Vocabulary
from outrider.errors import ConfigError
from tests.drafting.test_suffix_store import TEXT, drafted
from tests.fakes import Clock

WORDS = Vocabulary("target", {number: f"word {number}" for number in range(200)}, 200)
OTHER = Vocabulary("other", {number: f"wort {number}" for number in range(200)}, 200)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "texts"


def store_of(path: Path, clock: Clock | None = None) -> SuffixStore:
    return SuffixStore(2**20, SuffixFile(path, WORDS), clock or Clock())


@pytest.fixture
def saved(path: Path) -> Path:
    store = store_of(path)
    store.add(None, TEXT)
    store.add("tenant", (1, 2, 3, 4, 5))
    store.save()
    return path


def test_texts_are_there_again(saved: Path) -> None:
    store = store_of(saved)
    assert drafted(store, TEXT[:5]) == TEXT[5:9]
    assert drafted(store, (1, 2, 3), "tenant") == (4, 5)
    assert drafted(store, (1, 2, 3)) == ()
    assert drafted(store, TEXT[:5], "tenant") == ()


def test_the_file_is_its_owners_and_has_no_salt_in_it(saved: Path) -> None:
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert b"tenant" not in saved.read_bytes()
    assert [each.name for each in saved.parent.iterdir()] == [saved.name]


def test_a_drafter_that_goes_saves(path: Path) -> None:
    drafter = SuffixDrafter(2, 64, store_of(path))
    drafter._shared.add(None, TEXT)
    assert not path.exists()
    del drafter
    gc.collect()
    assert drafted(store_of(path), TEXT[:5]) == TEXT[5:9]


def test_it_is_saved_now_and_then(path: Path) -> None:
    clock = Clock()
    store = store_of(path, clock)
    store.add(None, TEXT)
    assert not path.exists()
    clock.now = SAVE_EVERY + 1
    store.add(None, TEXT)
    file = store._file
    assert file is not None
    file.wait()
    assert drafted(store_of(path), TEXT[:5]) == TEXT[5:9]


def test_what_is_not_new_is_not_written(saved: Path) -> None:
    before = saved.stat().st_ino
    store_of(saved).save()
    assert saved.stat().st_ino == before


@pytest.mark.parametrize("damage", ["cut", "flipped", "head"])
def test_a_damaged_file_is_told_of_and_not_read(
    saved: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = saved.read_bytes()
    flipped = data[:-3] + bytes([data[-3] ^ 1]) + data[-2:]
    saved.write_bytes({"cut": data[:-7], "flipped": flipped, "head": data[: len(MAGIC) + 5]}[damage])
    with caplog.at_level(logging.WARNING):
        store = store_of(saved)
    assert "is damaged" in caplog.text
    assert store.bytes == 0
    store.add(None, TEXT)
    store.save()
    assert drafted(store_of(saved), TEXT[:5]) == TEXT[5:9]


def test_the_file_of_another_vocabulary_is_refused_and_left_alone(saved: Path) -> None:
    before = saved.read_bytes()
    with pytest.raises(ConfigError, match=r"^suffix_file = .* has texts of another vocabulary; "):
        SuffixStore(2**20, SuffixFile(saved, OTHER))
    assert saved.read_bytes() == before


def test_a_file_of_another_kind_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("my notes")
    with pytest.raises(ConfigError, match=r"^suffix_file = .* is not a file of Outrider's texts; "):
        store_of(path)
    assert path.read_text() == "my notes"


def test_a_file_in_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^suffix_file = .*: there is no folder "):
        SuffixFile(tmp_path / "none" / "texts", WORDS)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^suffix_file = .* cannot be read: "):
        store_of(tmp_path)


def test_what_cannot_be_written_harms_nobody(saved: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = store_of(saved)
    store.add(None, TEXT)
    saved.unlink()
    saved.mkdir()  # as nobody can replace by a file
    with caplog.at_level(logging.ERROR):
        store.save()
    assert "the texts of finished requests could not be saved" in caplog.text
