"""Edits against plain Python, one by one and all at once, in the context of every row of a draft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from outrider.errors import RequestError
from outrider.ops.choice import Choice, NoToken
from outrider.ops.torch.choose import edited as edited_rows
from outrider.params import SamplingParams
from outrider.sampling.sampler import Sampler, build_sampler
from tests.ops.seam import BACKENDS, chosen
from tests.sampling import reference

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
    )


def choice(sampler: Sampler, output: Sequence[int], draft: Sequence[int] = ()) -> Choice:
    """From the rows that follow `output`, and each token of a draft behind it."""
    contexts = ([*output, *draft[:drafted]] for drafted in range(len(draft) + 1))
    return Choice(len(draft) + 1, edits=sampler.rows(contexts))


def edited(sampler: Sampler, logits: Tensor, output: Sequence[int], draft: Sequence[int] = ()) -> Tensor:
    return edited_rows(logits, choice(sampler, output, draft))


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
    rows = edited(build(prompt, **wanted), torch.tensor([row]), output)
    torch.testing.assert_close(rows[0], expected(row, output, prompt, wanted))


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
    """All edits at once, and what is chosen then; nothing of a row that they leave nothing of."""
    draft = draft[:4]
    given_logits = torch.tensor(logits[: len(draft) + 1])
    before = given_logits.clone()
    sampler = build(prompt, **wanted)
    found = edited(sampler, given_logits, output, draft)
    want = torch.stack(
        [expected(row, [*output, *draft[:i]], prompt, wanted) for i, row in enumerate(before.tolist())]
    )
    torch.testing.assert_close(found, want)
    assert torch.equal(given_logits, before)
    tokens = [
        int(row.argmax()) if float(row.max()) > -torch.inf else NoToken.NOTHING for row in found.unbind()
    ]
    for backend in BACKENDS:
        assert chosen(backend, given_logits.numpy(), choice(sampler, output, draft))[0] == tokens


@given(logits=st.lists(rows, min_size=4, max_size=4), output=texts, wanted=together)
def test_a_row_is_edited_as_in_plain_decoding(
    logits: list[list[float]], output: list[int], wanted: dict[str, Any]
) -> None:
    """To the last bit."""
    draft = [0, 3, 3]
    sampler = build(**wanted)
    for i, row in enumerate(edited(sampler, torch.tensor(logits), output, draft)):
        alone = edited(sampler, torch.tensor(logits[i : i + 1]), [*output, *draft[:i]])
        assert torch.equal(row, alone[0])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_that_the_draft_leaves_no_token(backend: str) -> None:
    """After token 1 only 0 and 1 are allowed, and both would complete a bad word."""
    sampler = build(allowed_token_ids=(0, 1), words=[[1, 0], [1, 1]])
    logits, none = np.zeros((4, VOCAB), np.float32), NoToken.NOTHING
    for output, draft, tokens in (
        ([], [0, 0, 0], [0, 0, 0, 0]),
        ([], [0, 0, 1], [0, 0, 0, none]),
        ([], [0, 1, 0], [0, 0, none, 0]),
        ([1], [0, 0, 0], [none, 0, 0, 0]),
    ):
        assert chosen(backend, logits, choice(sampler, output, draft))[0] == tokens


def test_edits_apply_one_after_the_other() -> None:
    sampler = build([1], logit_bias={0: 1.0}, repetition_penalty=2.0, presence_penalty=1.0)
    found = edited(sampler, torch.full((1, VOCAB), 4.0), [2])
    assert found.tolist() == [[5.0, 2.0, 1.0, 4.0, 4.0, 4.0]]


def test_without_edits_there_is_nothing_to_do() -> None:
    assert build().rows([[], [0]]) == [(), ()]
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
