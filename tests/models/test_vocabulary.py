"""A draft and a target must mean the same by every token id."""

from __future__ import annotations

import pytest

from outrider.drafting.vocabulary import check_same_vocabulary
from outrider.errors import ModelError
from tests.models.factories import tiny_tokenizer


def test_the_same() -> None:
    extra = ("<a>", "<b>")
    check_same_vocabulary(tiny_tokenizer(extra), tiny_tokenizer(extra), target="t", draft="d")


@pytest.mark.parametrize(
    ("target", "draft", "place", "ours", "theirs"),
    [
        (("<a>", "<b>", "<c>"), ("<a>", "<x>", "<y>"), 1, "'<b>'", "'<x>'"),
        (("<a>", "<b>"), ("<a>",), 1, "'<b>'", "None"),
        ((), ("<a>", "<b>"), 0, "None", "'<a>'"),
    ],
)
def test_the_first_difference_is_named(
    target: tuple[str, ...], draft: tuple[str, ...], place: int, ours: str, theirs: str
) -> None:
    first = len(tiny_tokenizer()) + place
    with pytest.raises(ModelError) as caught:
        check_same_vocabulary(tiny_tokenizer(target), tiny_tokenizer(draft), target="big", draft="small")
    text = str(caught.value)
    assert "draft model 'small'" in text
    assert "target 'big'" in text
    assert f"token id {first} is {ours} in the target ({len(tiny_tokenizer(target))} tokens)" in text
    assert f"{theirs} in the draft ({len(tiny_tokenizer(draft))} tokens)" in text
