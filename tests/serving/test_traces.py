"""Where tokens came from: what increments tell of drafts, and what streams tell of them."""

from __future__ import annotations

import json
from itertools import chain
from math import exp
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from tests.engine.helpers import load
from tests.serving.harness import Served, running

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "the end of the end"}], "seed": 5}


def traces(served: Served, path: str = "/v1/chat/completions", **body: Any) -> list[dict[str, Any]]:
    """The choices of a stream that have a trace."""
    asked = body | {"stream": True, "speculation_trace": True}
    # Not by httpx's lines: those also end at U+0085, which a random model says now and then.
    events = served.post(path, **asked).content.decode().removesuffix("data: [DONE]\n\n").split("\n\n")
    chunks = [json.loads(event.removeprefix("data: ")) for event in events if event]
    choices = chain.from_iterable(chunk["choices"] for chunk in chunks)
    return [choice for choice in choices if "speculation_trace" in choice]


def joined(choices: list[dict[str, Any]], part: str) -> list[dict[str, Any]]:
    return [one for choice in choices for one in choice["speculation_trace"][part]]


def sources(drafts: list[dict[str, Any]], count: int) -> list[str]:
    """Where each of `count` tokens came from, told from the drafts alone."""
    told = ["target"] * count
    for draft in drafts:
        end = draft["position"] + draft["accepted"]
        told[draft["position"] : end] = ["draft"] * draft["accepted"]
        if end < count:
            told[end] = "bonus" if draft["accepted"] == len(draft["tokens"]) else "correction"
    return told


@pytest.mark.parametrize("stop", [None, ["zzzz"]])
def test_tokens_and_drafts(chained: Served, draft: str, stop: list[str] | None) -> None:
    """They agree, also where a stop string holds text back, and texts of tokens make up the answer."""
    choices = traces(chained, **CHAT, max_tokens=60, logprobs=True, return_token_ids=True, stop=stop)
    tokens, drafts = joined(choices, "tokens"), joined(choices, "drafts")
    assert "".join(token["text"] for token in tokens) == "".join(
        c["delta"].get("content", "") for c in choices
    )
    assert len(tokens) == sum(len(choice["token_ids"]) for choice in choices) == 60
    assert [token["source"] for token in tokens] == sources(drafts, 60)
    assert {"draft", "correction"} <= {token["source"] for token in tokens}
    assert {of["drafter"] for of in drafts} == {"suffix", Path(draft).name}
    for of in drafts:
        assert 1 <= len(of["tokens"]) == len(of["drafters"]) <= 3
        assert of["drafter"] == of["drafters"][0]
        if of["drafter"] == "suffix":
            assert of["probabilities"] is None
        else:
            assert len(of["probabilities"]) == of["drafters"].count(of["drafter"])


def test_nothing_changes_an_answer(chained: Served, offline: LLM) -> None:
    expected = offline.generate("the end", SamplingParams(seed=5, max_tokens=40), use_tqdm=False)[0]
    choices = traces(chained, "/v1/completions", prompt="the end", seed=5, max_tokens=40)
    assert "".join(choice["text"] for choice in choices) == expected.outputs[0].text
    assert all(draft["probabilities"] is None for draft in joined(choices, "drafts"))


def test_probabilities_are_the_drafters(target: str) -> None:
    """Of a target that drafts for itself they are the target's own; with fewer bits in a float apart."""
    with running(load(target, target, num_speculative_tokens=4)) as served:
        choices = traces(served, **CHAT, max_tokens=40, logprobs=True, top_p=0.9)
    target_says = [exp(one["logprob"]) for choice in choices for one in choice["logprobs"]["content"]]
    drafts = joined(choices, "drafts")
    assert sum(of["accepted"] for of in drafts) > 20
    for of in drafts:
        said = of["probabilities"][: of["accepted"]]
        assert said == pytest.approx(target_says[of["position"] :][: of["accepted"]], rel=1e-4)


def test_what_a_grammar_forces(chained: Served) -> None:
    body = CHAT | {"structured_outputs": {"choice": ["the end of the line"]}, "max_tokens": 40}
    drafts = joined(traces(chained, **body), "drafts")
    assert "grammar" in {draft["drafter"] for draft in drafts}


def test_several_sequences(chained: Served) -> None:
    choices = traces(chained, **CHAT, max_tokens=20, n=3)
    for index in range(3):
        own = [choice for choice in choices if choice["index"] == index]
        tokens = joined(own, "tokens")
        assert [token["source"] for token in tokens] == sources(joined(own, "drafts"), len(tokens))


def test_without_a_stream_it_is_refused(chained: Served) -> None:
    refused = chained.post("/v1/chat/completions", **CHAT, speculation_trace=True)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "speculation_trace"


def test_increments_tell_drafts_where_that_is_asked(chained: Served, target: str) -> None:
    llm = load(target, "ngram", num_speculative_tokens=3)
    for asked in (False, True):
        params = SamplingParams(temperature=0, max_tokens=60, trace_drafts=asked)
        increments = list(llm.stream("the end of the end", params))
        assert any(increment.drafted for increment in increments)
        for increment in increments:
            assert (increment.draft is not None) == (asked and increment.drafted > 0)
            if increment.draft is not None:
                stood = increment.draft.tokens[: increment.accepted]
                assert increment.token_ids[: increment.accepted] == stood
