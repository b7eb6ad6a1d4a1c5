"""A field that a request leaves out, or sends as null, has the model's default."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from tests.engine.helpers import load
from tests.factories import write_model
from tests.serving.harness import MODEL, Served, running
from tests.serving.test_refusals import CHAT, HI, TEXT

DEFAULTS = {"temperature": 0.5, "top_k": 12, "repetition_penalty": 1.2, "max_new_tokens": 9}


@pytest.fixture(scope="module")
def llm(tmp_path_factory: pytest.TempPathFactory) -> LLM:
    folder = tmp_path_factory.mktemp("model")
    write_model(folder)
    (folder / "generation_config.json").write_text(json.dumps(DEFAULTS | {"eos_token_id": 2}))
    return load(str(folder))


@pytest.fixture(scope="module")
def own(llm: LLM) -> Iterator[Served]:
    """An engine of its own, which a server steps."""
    with running(load(llm.config.model)) as served:
        yield served


def offline(llm: LLM, prompt: Any, **params: Any) -> str:
    (output,) = llm.generate(prompt, SamplingParams(**params), use_tqdm=False)
    return output.outputs[0].text


@pytest.mark.parametrize("nulls", [False, True], ids=["left out", "null"])
def test_defaults_are_applied(own: Served, llm: LLM, nulls: bool) -> None:
    fields = dict.fromkeys(("temperature", "top_k", "repetition_penalty", "max_tokens")) if nulls else {}
    sampled = {"temperature": 0.5, "top_k": 12, "repetition_penalty": 1.2, "ignore_eos": True, "seed": 3}
    answer = own.post(CHAT, messages=HI, seed=3, ignore_eos=True, **fields).json()
    assert answer["usage"]["completion_tokens"] == 9
    expected = offline(llm, llm.chat_prompt(HI), max_tokens=9, **sampled)
    assert answer["choices"][0]["message"]["content"] == expected
    answer = own.post(TEXT, prompt="on", seed=3, ignore_eos=True, **fields).json()
    assert answer["usage"]["completion_tokens"] == 16  # OpenAI's default, as vLLM has it there
    assert answer["choices"][0]["text"] == offline(llm, "on", max_tokens=16, **sampled)


def test_what_a_request_says_counts(own: Served, llm: LLM) -> None:
    fields = {"temperature": 1.0, "top_k": 0, "repetition_penalty": 1.0, "max_tokens": 20, "ignore_eos": True}
    answer = own.post(TEXT, prompt="on", seed=3, **fields).json()
    assert answer["choices"][0]["text"] == offline(llm, "on", seed=3, **fields)


def test_they_are_shown_with_the_model(own: Served) -> None:
    shown = {"temperature": 0.5, "top_k": 12, "repetition_penalty": 1.2, "max_tokens": 9}
    (listed,) = own.http.get("/v1/models").json()["data"]
    assert listed["default_sampling_params"] == shown
    assert listed == own.http.get(f"/v1/models/{MODEL}").json()
    assert listed["max_model_len"] == 1024


def test_a_server_that_generates_less(llm: LLM) -> None:
    folder = Path(llm.config.model)
    with running(load(str(folder)), max_output_tokens=4, model_name="org/my.model") as served:
        card = served.http.get("/v1/models/org/my.model").json()
        assert card["default_sampling_params"]["max_tokens"] == 4
        assert served.client().models.retrieve("org/my.model").id == "org/my.model"
        answer = served.post(CHAT, messages=HI, ignore_eos=True).json()
        assert answer["usage"]["completion_tokens"] == 4
