"""Edits against plain Python, one by one and all at once, in the context of every row of a draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from outrider.errors import RequestError
from outrider.params import SamplingParams
from outrider.sampling.sampler import Sampler, build_sampler
from tests.sampling import reference

CPU = torch.device("cpu")
VOCAB = 6

tokens = st.integers(0, VOCAB - 1)
texts = st.lists(tokens, max_size=5)
rows = st.lists(st.floats(-20, 20, width=32), min_size=VOCAB, max_size=VOCAB)
quarters = st.integers(-8, 8).map(lambda n: n / 4)

EDITS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "allowed": st.fixed_dictionaries({"allowed_token_ids": st.lists(tokens, min_size=1)}),
    "bad_words": st.fixed_dictionaries({"words": st.lists(st.lists(tokens, min_size=1, max_size=3))}),
    "min_tokens": st.fixed_dictionaries({"min_tokens": st.integers(0, 8), "stops": st.frozensets(tokens)}),
    "logit_bias": st.fixed_dictionaries({"logit_bias": st.dictionaries(tokens, quarters)}),
    "repetition": st.fixed_dictionaries({"repetition_penalty": st.sampled_from([0.5, 1.0, 2.0, 4.0])}),
    "presence": st.fixed_dictionaries({"presence_penalty": quarters}),
    "frequency": st.fixed_dictionaries({"frequency_penalty": quarters}),
}
together = st.tuples(*EDITS.values()).map(lambda parts: {k: v for part in parts for k, v in part.items()})


def build(prompt: Sequence[int] = (), **wanted: Any) -> Sampler:
    words, stops = wanted.pop("words", []), wanted.pop("stops", frozenset())
    return build_sampler(
        SamplingParams(**wanted),
        prompt=prompt,
        bad_words=words,
        stop_tokens=stops,
        vocab=VOCAB,
        device=CPU,
    )


def expected(row: list[float], output: list[int], prompt: list[int], wanted: dict[str, Any]) -> Tensor:
    rest = dict(wanted)
    words, stops = rest.pop("words", []), rest.pop("stops", frozenset())
    return torch.tensor(reference.edited(row, output, SamplingParams(**rest), prompt, words, stops))


@pytest.mark.parametrize("name", EDITS)
@given(row=rows, output=texts, prompt=texts, data=st.data())
def test_one_edit(
    name: str, row: list[float], output: list[int], prompt: list[int], data: st.DataObject
) -> None:
    wanted = data.draw(EDITS[name])
    edited = build(prompt, **wanted).edit(torch.tensor([row]), output)
    want = expected(row, output, prompt, wanted)
    if float(want.max()) == -torch.inf:
        assert len(edited) == 0
    else:
        torch.testing.assert_close(edited[0], want)


@given(
    logits=st.lists(rows, min_size=5, max_size=5), output=texts, draft=texts, prompt=texts, wanted=together
)
def test_row_i_follows_the_draft_before_it(
    logits: list[list[float]],
    output: list[int],
    draft: list[int],
    prompt: list[int],
    wanted: dict[str, Any],
) -> None:
    """All edits at once; what is left ends before the first row that has no token to choose."""
    draft = draft[:4]
    given_logits = torch.tensor(logits[: len(draft) + 1])
    before = given_logits.clone()
    edited = build(prompt, **wanted).edit(given_logits, output, draft)
    want = [expected(row, [*output, *draft[:i]], prompt, wanted) for i, row in enumerate(before.tolist())]
    possible = [float(row.max()) > -torch.inf for row in want]
    count = possible.index(False) if False in possible else len(want)
    assert len(edited) == count
    for got, row in zip(edited, want, strict=False):
        torch.testing.assert_close(got, row)
    assert torch.equal(given_logits, before)


@given(logits=st.lists(rows, min_size=4, max_size=4), output=texts, wanted=together)
def test_a_row_is_edited_as_in_plain_decoding(
    logits: list[list[float]], output: list[int], wanted: dict[str, Any]
) -> None:
    """To the last bit."""
    draft = [0, 3, 3]
    sampler = build(**wanted)
    for i, row in enumerate(sampler.edit(torch.tensor(logits), output, draft)):
        alone = sampler.edit(torch.tensor(logits[i : i + 1]), [*output, *draft[:i]])
        assert torch.equal(row, alone[0])


def test_draft_ends_before_the_first_row_without_a_token() -> None:
    """After token 1 only 0 and 1 are allowed, and both would complete a bad word."""
    sampler = build(allowed_token_ids=(0, 1), words=[[1, 0], [1, 1]])
    logits = torch.zeros(4, VOCAB)
    assert len(sampler.edit(logits, [], [0, 0, 0])) == 4
    assert len(sampler.edit(logits, [], [0, 0, 1])) == 3
    assert len(sampler.edit(logits, [], [0, 1, 0])) == 2
    assert len(sampler.edit(logits, [1], [0, 0, 0])) == 0


def test_edits_apply_in_the_type_of_the_logits() -> None:
    sampler = build([1], logit_bias={0: 1.0}, repetition_penalty=2.0, presence_penalty=1.0)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        edited = sampler.edit(torch.full((1, VOCAB), 4.0, dtype=dtype), [2])
        assert edited.dtype == dtype
        assert edited.tolist() == [[5.0, 2.0, 1.0, 4.0, 4.0, 4.0]]


def test_without_edits_logits_pass_through() -> None:
    logits = torch.zeros(2, VOCAB)
    assert build().edit(logits, [], [0]) is logits
    assert build(min_tokens=4).edits == ()  # nothing could end the output


@pytest.mark.parametrize("token", [-1, VOCAB])
@pytest.mark.parametrize(
    ("name", "given_values"),
    [
        ("allowed_token_ids", lambda token: {"allowed_token_ids": (0, token)}),
        ("logit_bias", lambda token: {"logit_bias": {token: 1.0}}),
        ("bad_words", lambda token: {"words": [[0], [1, token]]}),
        ("stop_token_ids", lambda token: {"stops": frozenset({token}), "min_tokens": 1}),
    ],
)
def test_unknown_token_is_refused_by_the_name_of_its_parameter(
    name: str, given_values: reference.Given, token: int
) -> None:
    with pytest.raises(RequestError, match=rf"{name} holds token id {token}; .* 0 to {VOCAB - 1}"):
        build(**given_values(token))
