"""Which tokens a draft model says, and that its outputs for them are those of the whole model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from outrider.formats.quantization import QUANTIZED
from outrider.models import words
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import DraftRunner
from outrider.models.words import AllWords, FrequentWords, words_of
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.lane import Words
from outrider.ops.span import Span
from tests.models.factories import tiny_config, write_hf

ROWS, COUNT = 100, 10
ALL = [*range(ROWS)]


def few(ends: Sequence[int] = (50, 99), vocab: int = 90) -> FrequentWords:
    """Of a model with ROWS rows, for a target of fewer tokens. An output layer is a list of its rows."""
    model = SimpleNamespace(
        words=COUNT,
        tree=SimpleNamespace(vocab_size=ROWS),
        config=SimpleNamespace(eos_token_ids=ends),
        backend=SimpleNamespace(as_one=lambda layers: [row for layer in layers for row in layer]),
        output=ALL,
    )
    return FrequentWords(cast("Model", model), vocab, lambda rows: rows.tolist())


def said(words: FrequentWords) -> list[int]:
    """What is said beside the first tokens."""
    ids = words.words.ids
    assert ids is not None
    assert ids[:COUNT].tolist() == [*range(COUNT)]
    assert ids.tolist() == words.output
    return cast("list[int]", words.output[COUNT:])


def test_the_first_tokens_and_what_ends_a_text() -> None:
    assert said(few()) == [50]  # the target has no token 99
    assert said(few(ends=())) == []


def test_what_is_read_is_taken_up() -> None:
    words = few()
    words.learn([3, 50, 99, 95])
    assert not words.renew(), "it has these, or its target has not"
    words.learn([70, 60, 70])
    assert said(words) == [50]
    assert words.renew()
    assert said(words) == [50, 60, 70]
    assert not words.renew()


def heard(words: FrequentWords, *tokens: int) -> None:
    """These are read among many that are frequent."""
    for token in tokens:
        words.learn([token, *[1] * 40])


def test_a_few_wait_for_more() -> None:
    """All are packed anew, which has to be worth it."""
    words = few()
    heard(words, *range(10, 90, 2))
    assert words.renew()
    kept = said(words)
    heard(words, *range(11, 20, 2))
    assert not words.renew()
    heard(words, 81)
    assert words.renew()
    assert said(words) == sorted([*kept, *range(11, 20, 2), 81])


def test_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "MOST_READ", 3)
    few_words = few()
    heard(few_words, 60, 61, 62, 60, 63, 64)
    assert few_words.renew()
    assert said(few_words) == [50, 60, 63, 64]


def test_all_are_said_where_the_frequent_ones_miss_too_much() -> None:
    """As in another language, until its words are known."""
    words = few()
    words.learn(range(20, 80))
    assert words.renew()
    assert words.words == Words(90)
    assert words.output is ALL
    assert not words.renew()
    for _ in range(6):
        words.learn(range(20, 80))
    assert words.renew()
    assert said(words) == [*range(20, 80)]
    words.learn([*range(20, 80)] * 9)
    assert not words.renew()


@pytest.mark.parametrize("format", [None, "int8", "int4"])
@pytest.mark.parametrize("tied", [False, True])
def test_its_logits_are_those_of_the_whole_model(tmp_path: Path, tied: bool, format: Any) -> None:
    """To the last bit, before and after it has learnt."""
    write_hf(tmp_path, tiny_config(tie_word_embeddings=tied))
    formats = (None, None) if format is None else QUANTIZED[format]
    runners = []
    for count in (None, 48):
        backend = NativeBackend(*formats, cache_dtype="float32", num_threads=1)
        model = Model(open_checkpoint(str(tmp_path)), backend, words=count)
        vocab = model.tree.vocab_size - 7
        runner = DraftRunner(
            model, num_blocks=4, block_size=16, prefix_caching=False, words=words_of(model, vocab)
        )
        runners.append(runner)
    whole, runner = runners
    span = Span([5, 60, 7, 211], 0, ([1],), 4)
    expected = whole.forward([span])
    for learnt in ((), (60, 211, 100)):
        runner.learn(learnt)
        assert runner._words.renew() == bool(learnt)
        runner._compile()
        ids = runner._words.words.ids
        assert ids is not None
        assert ids.tolist() == [*range(48), *sorted(learnt)]
        np.testing.assert_array_equal(runner.forward([span]), expected[:, ids])


def test_who_has_all_words_learns_none(tmp_path: Path) -> None:
    write_hf(tmp_path)
    for count in (None, 10**6):
        backend = NativeBackend(cache_dtype="float32", num_threads=1)
        model = Model(open_checkpoint(str(tmp_path)), backend, words=count)
        assert isinstance(words_of(model, model.tree.vocab_size - 7), AllWords)
    model = Model(open_checkpoint(str(tmp_path)), backend, words=48)
    assert isinstance(words_of(model, 48), AllWords)
    assert isinstance(words_of(model, 49), FrequentWords)
