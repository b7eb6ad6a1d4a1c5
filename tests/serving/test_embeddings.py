"""/v1/embeddings through OpenAI's client, and what it refuses."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest

from outrider.engine.embedding import CacheInUse
from outrider.engine.watcher import Watcher
from tests.engine.helpers import load
from tests.serving.harness import MODEL, Served
from tests.serving.test_refusals import error_of

PATH = "/v1/embeddings"


def test_every_form_of_input(served: Served, target: str) -> None:
    offline = load(target, pooling="mean")
    client = served.client().embeddings
    tokens = offline.tokenizer.encode("the end")
    for given, count in (("the end", 1), (["the end", "on"], 2), (tokens, 1), ([tokens, [5, 6]], 2)):
        answer = client.create(model=MODEL, input=given)
        assert [item.index for item in answer.data] == [*range(count)]
        (first,) = offline.embed([tokens])
        np.testing.assert_array_equal(answer.data[0].embedding, first.outputs.embedding)
        assert answer.usage.prompt_tokens == answer.usage.total_tokens >= len(tokens)
    plain, packed = (
        served.post(PATH, input="on", encoding_format=form).json()["data"][0]["embedding"]
        for form in ("float", "base64")
    )
    np.testing.assert_array_equal(np.frombuffer(base64.b64decode(packed), "<f4").tolist(), plain)
    served.until_idle()


def test_who_watches_is_told_before_each_text(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """As who learns in idle time has to be."""
    told: list[str] = []

    class Listening(Watcher):
        def embedding(self) -> None:
            told.append("next")

    engine = served.llm.engine
    monkeypatch.setattr(engine, "watchers", [*engine.watchers, Listening()])
    assert len(served.post(PATH, input=["the end", "on"]).json()["data"]) == 2
    assert told == ["next", "next"]
    served.until_idle()


def test_fewer_dimensions(served: Served) -> None:
    whole = np.array(served.post(PATH, input="on").json()["data"][0]["embedding"])
    short = served.post(PATH, input="on", dimensions=7).json()["data"][0]["embedding"]
    np.testing.assert_allclose(short, whole[:7] / np.linalg.norm(whole[:7]), rtol=1e-5)


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({"input": "on", "dimensions": 49}, "dimensions", "the model's embeddings have 48"),
        ({"input": "on", "dimensions": 0}, "dimensions", "greater than or equal to 1"),
        ({"input": "on", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"input": ["x"] * 2049}, "input", "has 2049 texts, and can have 2048"),
        ({"input": []}, "input", "none of them empty"),
        ({"input": ""}, None, "the prompt is empty"),
        ({"input": [10**6]}, None, "not in the vocabulary"),
        ({"input": [5] * 1024}, None, "the prompt has 1024 tokens"),
        ({"input": "on", "truncate_prompt_tokens": 3}, "truncate_prompt_tokens", "leave it out"),
    ],
    ids=str,
)
def test_refusals(served: Served, body: dict[str, Any], param: str | None, reason: str) -> None:
    error = error_of(served.post(PATH, **body), 400)
    assert error["param"] == param
    assert reason in error["message"]


def test_a_model_that_is_not_meant_for_it(chained: Served) -> None:
    assert "--pooling" in error_of(chained.post(PATH, input="on"), 400)["message"]


def test_what_goes_wrong_in_the_engine(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    for error, status in ((CacheInUse("requests have the cache"), 429), (ZeroDivisionError(), 500)):

        def fail(*_: Any, error: Exception = error) -> Any:
            raise error

        monkeypatch.setattr(served.llm.engine.embedder, "_pooled", fail)
        error_of(served.post(PATH, input="on"), status)
    monkeypatch.undo()
    assert served.post(PATH, input="on").status_code == 200
    served.until_idle()


def test_beside_requests_that_run(served: Served, target: str) -> None:
    """Neither changes the other."""
    alone = served.post(PATH, input="the end").json()["data"]
    body = {"prompt": "on", "max_tokens": 60, "temperature": 0, "ignore_eos": True}
    text = served.post("/v1/completions", **body).json()["choices"][0]["text"]
    with served.http.stream("POST", "/v1/completions", json=body | {"stream": True, "n": 4}) as others:
        assert served.post(PATH, input="the end").json()["data"] == alone
        for _ in others.iter_lines():
            pass
    assert served.post("/v1/completions", **body).json()["choices"][0]["text"] == text
