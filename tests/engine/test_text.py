"""Text of token sequences: UTF-8 over several tokens, stop strings, and what a stream shows."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from outrider import SamplingParams
from outrider.engine.detokenizer import Detokenizer, OutputText
from tests.engine.helpers import PROMPTS, expected, load
from tests.factories import as_loaded, tiny_tokenizer

TOKENIZER = as_loaded(tiny_tokenizer())


def byte_tokens(text: str) -> list[int]:
    """One token a byte of UTF-8: characters beyond ASCII span tokens."""
    pieces = TOKENIZER.backend.pre_tokenizer.pre_tokenize_str(text)
    return [TOKENIZER.get_vocab()[character] for piece, _ in pieces for character in piece]


def push_all(text: OutputText, tokens: list[int], *, stops: bool = True) -> tuple[str, str | None]:
    """The text released along the way, and the stop string that was met."""
    shown, found = "", None
    for token in tokens:
        found = text.push(token, "target", silent=False, stops=stops)
        if found is not None:
            break
        shown += "".join(piece.text for piece in text.release(finished=False))
    text.finish()
    shown += "".join(piece.text for piece in text.release(finished=True))
    return shown, found


def output_text(stop: tuple[str, ...] = (), *, include_stop: bool = False) -> OutputText:
    detokenizer = Detokenizer(TOKENIZER, [50, 51], skip_special_tokens=True)
    return OutputText(detokenizer, stop, include_stop=include_stop)


@given(st.text(max_size=30))
def test_characters_that_span_tokens(text: str) -> None:
    state = output_text()
    shown, _ = push_all(state, byte_tokens(text))
    assert state.text == shown == text


@given(st.lists(st.integers(3, 258), max_size=40))
def test_any_tokens_decode_as_a_whole(tokens: list[int]) -> None:
    """Also bytes that are no UTF-8 at all."""
    state = output_text()
    shown, _ = push_all(state, tokens)
    assert state.text == shown
    prefix = TOKENIZER.decode([50, 51])
    assert prefix + state.text == TOKENIZER.decode([50, 51, *tokens])


def test_nothing_is_shown_of_half_a_character() -> None:
    state = output_text()
    for token in byte_tokens("é")[:1]:
        state.push(token, "target", silent=False, stops=True)
        assert "".join(p.text for p in state.release(finished=False)) == ""


@settings(max_examples=200)
@given(
    st.text(alphabet="abé \n", max_size=30),
    st.lists(st.text(alphabet="abé ", min_size=1, max_size=4), min_size=1, max_size=3),
    st.booleans(),
)
def test_stop_strings(text: str, stops: list[str], include: bool) -> None:
    """The output ends at the stop string that is complete first; nothing of it was shown before."""
    state = output_text(tuple(stops), include_stop=include)
    shown, found = push_all(state, byte_tokens(text))
    ends = [(text.find(s) + len(s), text.find(s), s) for s in stops if s in text]
    if not ends:
        assert found is None
        assert shown == text
        return
    first_end = min(end for end, _, _ in ends)
    at, stop = min((at, s) for end, at, s in ends if end == first_end)
    assert found == stop
    assert state.text == shown == (text[: at + len(stop)] if include else text[:at])


@pytest.mark.parametrize("stops", [("ab",), ("ab", "x" * 20)])
def test_a_stop_string_that_was_complete_before_it_counted_ends_nothing(stops: tuple[str, ...]) -> None:
    """However long the others are."""
    state = output_text(stops)
    push_all(state, byte_tokens("ab"), stops=False)
    assert push_all(state, byte_tokens("c")) == ("c", None)
    assert push_all(state, byte_tokens("ab")) == ("", "ab")


def test_stop_string_that_straddles_an_accepted_draft(target: str) -> None:
    """Whatever part of the plain text stops the run: same result, drafted by the target itself."""
    prompt, free = PROMPTS[2], SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)
    text = expected(target, prompt, free).outputs[0].text
    llm = load(target, target, num_speculative_tokens=6)
    for start in range(2, len(text) - 4, 3):
        for include in (False, True):
            stop = text[start : start + 3]
            if "\N{REPLACEMENT CHARACTER}" in stop:
                continue
            params = free.model_copy(update={"stop": (stop,), "include_stop_str_in_output": include})
            output = llm.generate(prompt, params, use_tqdm=False)[0].outputs[0]
            plain = expected(target, prompt, params).outputs[0]
            assert (output.text, output.token_ids) == (plain.text, plain.token_ids)
            assert (output.finish_reason, output.stop_reason) == ("stop", stop)
            at = text.find(stop)
            assert output.text == (text[: at + 3] if include else text[:at])


@pytest.mark.parametrize("stop", [(), ("e",), ("he", "a")])
def test_stream_adds_up_to_generate(target: str, draft: str, stop: tuple[str, ...]) -> None:
    llm = load(target, draft, num_speculative_tokens=4)
    for seed, prompt in enumerate(PROMPTS):
        params = SamplingParams(temperature=1.0, max_tokens=60, seed=seed, stop=stop)
        increments = list(llm.stream(prompt, params))
        plain = expected(target, prompt, params).outputs[0]
        assert "".join(i.text for i in increments) == plain.text
        assert tuple(t for i in increments for t in i.token_ids) == plain.token_ids
        assert [i.finish_reason is not None for i in increments] == [False] * (len(increments) - 1) + [True]
        pieces = [piece for increment in increments for piece in increment.pieces]
        assert [piece.token_id for piece in pieces] == list(plain.token_ids)
        assert [p.origin for p in pieces].count("draft") == sum(i.accepted for i in increments)


def test_leaving_a_stream_frees_its_blocks(target: str, draft: str) -> None:
    llm = load(target, draft, num_speculative_tokens=4)
    for _ in llm.stream(PROMPTS[2], SamplingParams(max_tokens=50, ignore_eos=True)):
        break
    assert not llm.engine.unfinished
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks


def test_streams_and_batches_may_interleave(target: str, draft: str) -> None:
    """Increments of a stream wait for it while other calls step the engine."""
    llm = load(target, draft, num_speculative_tokens=3)
    params = [SamplingParams(temperature=1.0, max_tokens=n, seed=n, ignore_eos=True) for n in (30, 20, 40)]
    first, second = llm.stream(PROMPTS[0], params[0]), llm.stream(PROMPTS[1], params[1])
    texts = [next(first).text, next(second).text]
    batch = llm.generate(PROMPTS[2], params[2], use_tqdm=False)[0]
    texts[0] += "".join(increment.text for increment in first)
    texts[1] += "".join(increment.text for increment in second)
    for text, prompt, one in zip([*texts, batch.outputs[0].text], PROMPTS, params, strict=False):
        assert text == expected(target, prompt, one).outputs[0].text


def test_a_stream_that_was_never_begun(target: str) -> None:
    llm = load(target)
    llm.stream(PROMPTS[0], SamplingParams(max_tokens=4)).close()
    assert not llm.engine.unfinished
