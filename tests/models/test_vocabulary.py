"""A draft and a target must mean the same by every token id; what only fills a table means nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from outrider import LLM, SamplingParams
from outrider.drafting.vocabulary import Vocabulary, check_same_vocabulary
from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from tests.engine.helpers import load, token_ids
from tests.factories import tiny_config, tiny_tokenizer, write_model, write_noisy_copy
from tests.models.factories import write_gguf

SIZE = len(tiny_tokenizer())
TOKENS = st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=12, unique=True)
PADDING = st.integers(0, 5)


def vocabulary(model: str, tokens: dict[int, str] | list[str], rows: int) -> Vocabulary:
    return Vocabulary(model, dict(enumerate(tokens)) if isinstance(tokens, list) else tokens, rows)


def refusal(target: Vocabulary, draft: Vocabulary) -> str:
    with pytest.raises(ModelError) as caught:
        check_same_vocabulary(target, draft)
    return str(caught.value)


# Values


@given(TOKENS, PADDING, PADDING)
def test_any_padding_of_the_same_tokens_passes(tokens: list[str], ours: int, theirs: int) -> None:
    size = len(tokens)
    check_same_vocabulary(vocabulary("t", tokens, size + ours), vocabulary("d", tokens, size + theirs))


@given(TOKENS, PADDING, PADDING, st.data())
def test_of_any_differences_the_first_is_named(tokens: list[str], a: int, b: int, data: Any) -> None:
    """Tokens changed, and tokens that only one of them has, in the middle or at the end."""
    places = data.draw(st.lists(st.integers(0, len(tokens) - 1), min_size=1, unique=True), label="places")
    both = [dict(enumerate(tokens)), dict(enumerate(tokens))]
    for place in places:
        changed = both[data.draw(st.integers(0, 1), label="whose")]
        if data.draw(st.booleans(), label="taken away"):
            changed.pop(place)
        else:
            changed[place] = f"another {place}"
    ours, theirs = both
    first = min(places)
    text = refusal(vocabulary("t", ours, len(tokens) + a), vocabulary("d", theirs, len(tokens) + b))
    assert f"token id {first} is {shown(ours, first)} in the target ({len(ours)} tokens)" in text
    assert f"{shown(theirs, first)} in the draft ({len(theirs)} tokens)" in text


def shown(tokens: dict[int, str], place: int) -> str:
    return repr(tokens[place]) if place in tokens else "padding"


def test_a_token_beyond_the_other_table() -> None:
    text = refusal(vocabulary("big", ["a", "b", "c"], 4), vocabulary("small", ["a", "b"], 2))
    assert text == (
        "draft model 'small' does not share the vocabulary of target 'big': token id 2 is 'c' in the target "
        "(3 tokens) and beyond the 2 rows of the table in the draft (2 tokens); choose a draft with the "
        "target's tokenizer, or let it draft text with draft_vocabulary = 'text'"
    )


# Tokenizers


def of(extra: tuple[str, ...], padding: int = 0, *, special: bool = False) -> Vocabulary:
    tokenizer = tiny_tokenizer(() if special else extra)
    if special:
        tokenizer.add_special_tokens({"additional_special_tokens": list(extra)})
    return Vocabulary.of("m", tokenizer, len(tokenizer) + padding)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(
    ("target", "draft", "place", "ours", "theirs"),
    [
        (("<a>", "<b>", "<c>"), ("<a>", "<x>", "<y>"), 1, "'<b>'", "'<x>'"),
        (("<a>", "<b>"), ("<b>", "<a>"), 0, "'<a>'", "'<b>'"),
        (("<a>", "<b>"), ("<a>",), 1, "'<b>'", "padding"),
        ((), ("<a>", "<b>"), 0, "padding", "'<a>'"),
    ],
)
def test_added_tokens(
    target: tuple[str, ...], draft: tuple[str, ...], place: int, ours: str, theirs: str, special: bool
) -> None:
    check_same_vocabulary(of(target, special=special), of(target, 7, special=special))
    text = refusal(of(target, 9, special=special), of(draft, 9, special=special))
    assert f"token id {SIZE + place} is {ours} in the target ({SIZE + len(target)} tokens)" in text
    assert f"{theirs} in the draft ({SIZE + len(draft)} tokens)" in text


def test_tokens_that_the_table_has_no_row_for_are_not_the_models() -> None:
    """A tokenizer with a padding token that was never trained, say."""
    tokenizer = tiny_tokenizer(("<pad>",))
    check_same_vocabulary(Vocabulary.of("t", tokenizer, SIZE), Vocabulary.of("d", tiny_tokenizer(), SIZE))
    text = refusal(Vocabulary.of("t", tokenizer, SIZE + 1), Vocabulary.of("d", tokenizer, SIZE))
    assert f"token id {SIZE} is '<pad>' in the target" in text
    assert f"beyond the {SIZE} rows of the table in the draft" in text


def test_rows_that_llama_cpp_gave_a_name_are_padding(tmp_path: Path) -> None:
    """But not a token that is named so and stands elsewhere."""
    padding = tuple(f"[PAD{SIZE + i}]" for i in range(3))
    padded = tiny_tokenizer(padding)
    model = write_model(tmp_path, tiny_config(vocab_size=SIZE + 3))
    write_gguf(tmp_path / "model.gguf", model, padded, GGMLQuantizationType.F32)
    checkpoint = open_checkpoint(str(tmp_path / "model.gguf"))
    from_gguf = Vocabulary.of("g", checkpoint.tokenizer(), checkpoint.config.vocab_size)
    for rows in (SIZE, SIZE + 3, SIZE + 9):
        plain = Vocabulary.of("h", tiny_tokenizer(), rows)
        check_same_vocabulary(from_gguf, plain)
        check_same_vocabulary(plain, from_gguf)
    moved = Vocabulary.of("m", tiny_tokenizer(padding[::-1]), SIZE + 3)
    assert f"token id {SIZE} is padding in the target" in refusal(from_gguf, moved)


# Engines


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A target that often says what is padding, and a draft that seldom does."""
    paths = tmp_path_factory.mktemp("target"), tmp_path_factory.mktemp("draft")
    model = write_model(paths[0], tiny_config(vocab_size=SIZE + 150))
    write_noisy_copy(paths[1], model, noise=0.02)
    return str(paths[0]), str(paths[1])


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("short")
    write_model(path)
    return str(path)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_target_that_says_padding(
    padded: tuple[str, str], short: str, backend: Any, temperature: float
) -> None:
    """The draft's table has no row for it, and the request goes on, with the target's own tokens."""
    target, _ = padded
    params = SamplingParams(temperature=temperature, seed=1, max_tokens=24, ignore_eos=True)
    prompts = [(5, 6, 7), (SIZE + 140, 3), (9,)]
    plain = LLM(target, device="cpu", backend=backend).generate(prompts, params, use_tqdm=False)
    llm = load(target, short, num_speculative_tokens=3, backend=backend)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert [token_ids(output) for output in outputs] == [token_ids(output) for output in plain]
    assert any(token >= SIZE for output in outputs for token in output.outputs[0].token_ids)


def test_a_draft_with_more_padding_than_the_target(padded: tuple[str, str], short: str) -> None:
    llm = load(short, padded[1], num_speculative_tokens=3)
    params = SamplingParams(temperature=1.0, seed=1, max_tokens=24, ignore_eos=True)
    output, plain = (
        one.generate((5, 6, 7), params, use_tqdm=False)[0] for one in (llm, LLM(short, device="cpu"))
    )
    assert token_ids(output) == token_ids(plain)
    assert output.outputs[0].speculation.drafted > 0
