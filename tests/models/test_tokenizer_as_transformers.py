"""What scripts call of a tokenizer is what transformers' would say."""

from __future__ import annotations

import pytest

from outrider.errors import ConfigError
from tests.factories import as_loaded, tiny_tokenizer

MESSAGES = [{"role": "user", "content": "the end"}, {"role": "assistant", "content": "It is"}]
TEXTS = ["the end", "<|im_start|>on and on", ""]
THEIRS = tiny_tokenizer()
OURS = as_loaded(THEIRS)


@pytest.mark.parametrize("prompt", [True, False])
def test_conversations(prompt: bool) -> None:
    text = THEIRS.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt)
    assert OURS.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt) == text
    assert OURS.apply_chat_template(MESSAGES, add_generation_prompt=prompt) == THEIRS.encode(
        text, add_special_tokens=False
    )
    template = "{{ messages[0].content }}{{ mood }}"
    laid_out = OURS.apply_chat_template(MESSAGES, chat_template=template, tokenize=False, mood="!")
    assert laid_out == "the end!"


def test_a_last_message_goes_on() -> None:
    text = THEIRS.apply_chat_template(MESSAGES, tokenize=False, continue_final_message=True)
    assert OURS.apply_chat_template(MESSAGES, tokenize=False, continue_final_message=True) == text


def test_no_template() -> None:
    bare = tiny_tokenizer()
    bare.chat_template = None
    with pytest.raises(ConfigError, match="the model has no chat template; give one as chat_template"):
        as_loaded(bare).apply_chat_template(MESSAGES)


def test_texts_and_tokens() -> None:
    for text in TEXTS:
        ids = THEIRS(text).input_ids
        assert OURS(text).input_ids == OURS(text)["input_ids"] == OURS.encode(text) == ids
        assert OURS(text).attention_mask == [1] * len(ids)
        for skip in (True, False):
            assert OURS.decode(ids, skip) == THEIRS.decode(ids, skip_special_tokens=skip)
        tokens = THEIRS.convert_ids_to_tokens(ids)
        assert OURS.convert_ids_to_tokens(ids) == tokens
        assert OURS.convert_tokens_to_ids(tokens) == ids
    several = THEIRS(TEXTS).input_ids
    assert OURS(TEXTS).input_ids == several
    assert OURS.batch_decode(several) == THEIRS.batch_decode(several)
    assert OURS.decode(5) == THEIRS.decode(5)


def test_special_tokens() -> None:
    for name in ("bos_token", "eos_token", "pad_token"):
        assert getattr(OURS, name) == getattr(THEIRS, name)
        assert getattr(OURS, f"{name}_id") == getattr(THEIRS, f"{name}_id")
    assert set(OURS.all_special_ids) == set(THEIRS.all_special_ids)
    assert (OURS.vocab_size, len(OURS)) == (THEIRS.vocab_size, len(THEIRS))
