"""OpenAI's own client drives the server, and reads what the offline engine says."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam

from outrider import LLM, RequestOutput, SamplingParams
from outrider.outputs import Logprob
from outrider.serving.logprobs import completion_logprobs
from tests.serving.harness import MODEL, Served

MESSAGES: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "the "}, {"type": "text", "text": "end"}]},
]
AS_TEMPLATES_SEE_THEM = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "the end"}]
SAMPLING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"temperature": 0}, {}),
    ({"temperature": 1.0, "seed": 7, "n": 3}, {}),
    ({"temperature": 0.8, "seed": 1, "top_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": 0.5}, {}),
    ({"temperature": 0.8, "seed": 1, "stop": ["e", "\n"]}, {"min_tokens": 3}),
    ({"seed": 3, "logit_bias": {"40": 5, "41": -100}}, {"top_k": 20, "min_p": 0.01, "bad_words": ["he"]}),
    ({"seed": 3}, {"repetition_penalty": 1.3, "ignore_eos": True, "stop_token_ids": [70, 80, 90]}),
    ({"temperature": 0}, {"allowed_token_ids": [40, 41, 42, 43], "num_speculative_tokens": 1}),
]


def of_offline(offline: LLM, fields: dict[str, Any], extra: dict[str, Any], prompt: Any) -> RequestOutput:
    """The offline engine's output for the same fields."""
    bias = {int(token): value for token, value in fields.get("logit_bias", {}).items()}
    params = SamplingParams(**{**fields, **extra, "logit_bias": bias or None})
    return offline.generate(prompt, params, use_tqdm=False)[0]


@pytest.mark.parametrize(("fields", "extra"), SAMPLING)
def test_chat(served: Served, offline: LLM, fields: dict[str, Any], extra: dict[str, Any]) -> None:
    expected = of_offline(
        offline, fields | {"max_tokens": 24}, extra, offline.chat_prompt(AS_TEMPLATES_SEE_THEM)
    )
    answer = served.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=24, extra_body=extra, **fields
    )
    assert [choice.message.content for choice in answer.choices] == [c.text for c in expected.outputs]
    assert [choice.finish_reason for choice in answer.choices] == [c.finish_reason for c in expected.outputs]
    assert [choice.index for choice in answer.choices] == list(range(len(expected.outputs)))
    assert answer.object == "chat.completion"
    assert answer.model == MODEL
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(expected.prompt_token_ids)
    assert answer.usage.completion_tokens == sum(len(c.token_ids) for c in expected.outputs)


@pytest.mark.parametrize(("fields", "extra"), SAMPLING)
def test_chat_stream(served: Served, offline: LLM, fields: dict[str, Any], extra: dict[str, Any]) -> None:
    """The deltas are the answer in pieces, and the last chunk counts."""
    expected = of_offline(
        offline, fields | {"max_tokens": 24}, extra, offline.chat_prompt(AS_TEMPLATES_SEE_THEM)
    )
    chunks = list(
        served.client().chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=24, stream=True,
            stream_options={"include_usage": True}, extra_body=extra | {"return_token_ids": True}, **fields,
        )
    )  # fmt: skip
    *chunks, last = chunks
    assert not last.choices
    assert last.usage is not None
    assert last.usage.completion_tokens == sum(len(c.token_ids) for c in expected.outputs)
    assert {chunk.id for chunk in chunks} == {last.id}
    for completion in expected.outputs:
        own = [choice for chunk in chunks for choice in chunk.choices if choice.index == completion.index]
        assert own[0].delta.role == "assistant"
        assert "".join(choice.delta.content or "" for choice in own) == completion.text
        assert [c.finish_reason for c in own if c.finish_reason] == [completion.finish_reason]
        ids = [token for choice in own for token in choice.token_ids]
        assert tuple(ids) == completion.token_ids


@pytest.mark.parametrize("stream", [False, True])
def test_chat_logprobs(served: Served, offline: LLM, stream: bool) -> None:
    fields = {"temperature": 1.0, "seed": 7, "n": 2, "stop": ["he"]}
    prompt = offline.chat_prompt(AS_TEMPLATES_SEE_THEM)
    expected = of_offline(offline, fields | {"max_tokens": 24, "logprobs": 2}, {}, prompt)
    result: Any = served.client().chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=24, logprobs=True, top_logprobs=2, stream=stream, **fields
    )  # type: ignore[call-overload]
    answers = list(result) if stream else [result]
    for completion in expected.outputs:
        own = [
            c for a in answers for c in a.choices if c.index == completion.index and c.logprobs is not None
        ]
        entries = [entry for choice in own for entry in choice.logprobs.content]
        assert completion.logprobs is not None
        assert len(entries) == len(completion.token_ids)
        for entry, token, logprobs in zip(entries, completion.token_ids, completion.logprobs, strict=True):
            assert entry.token == logprobs[token].decoded_token
            assert entry.logprob == pytest.approx(logprobs[token].logprob)
            best = sorted(logprobs.values(), key=lambda logprob: logprob.rank)[:2]
            assert [top.token for top in entry.top_logprobs] == [logprob.decoded_token for logprob in best]
            if entry.bytes is not None:
                assert bytes(entry.bytes).decode() == entry.token


PROMPTS: list[Any] = ["the end", ["the end", "on"], [10, 20, 30], [[10, 20, 30], [5, 6, 7, 5, 6, 7]]]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("echo", [False, True])
@pytest.mark.parametrize("stream", [False, True])
def test_completions(served: Served, offline: LLM, prompt: Any, echo: bool, stream: bool) -> None:
    fields: dict[str, Any] = {"temperature": 1.0, "seed": 7, "n": 2, "max_tokens": 12}
    given = prompt if isinstance(prompt, list) and not isinstance(prompt[0], int) else [prompt]
    expected = offline.generate(given, SamplingParams(**fields), use_tqdm=False)
    texts = [offline.tokenizer.decode(o.prompt_token_ids) if echo else "" for o in expected]
    wanted = [text + c.text for text, o in zip(texts, expected, strict=True) for c in o.outputs]
    result: Any = served.client().completions.create(
        model=MODEL, prompt=prompt, echo=echo, stream=stream, **fields
    )
    choices = [choice for answer in (result if stream else [result]) for choice in answer.choices]
    told = ["".join(c.text for c in choices if c.index == index) for index in range(len(wanted))]
    assert told == wanted


@pytest.mark.parametrize("stream", [False, True])
def test_completion_logprobs(served: Served, offline: LLM, stream: bool) -> None:
    params = SamplingParams(temperature=0, max_tokens=12, logprobs=2)
    completion = offline.generate("the end", params, use_tqdm=False)[0].outputs[0]
    result: Any = served.client().completions.create(
        model=MODEL, prompt="the end", temperature=0, max_tokens=12, logprobs=2, stream=stream
    )
    told = [c.logprobs for a in (result if stream else [result]) for c in a.choices if c.logprobs]
    assert completion.logprobs is not None
    wanted = [of[token] for of, token in zip(completion.logprobs, completion.token_ids, strict=True)]
    tokens = [token for logprobs in told for token in logprobs.tokens]
    assert tokens == [logprob.decoded_token for logprob in wanted]
    values = [value for logprobs in told for value in logprobs.token_logprobs]
    assert values == pytest.approx([logprob.logprob for logprob in wanted])
    offsets = [offset for logprobs in told for offset in logprobs.text_offset]
    assert offsets == [len("".join(tokens[:i])) for i in range(len(tokens))]


def test_logprobs_of_tokens_with_the_same_text() -> None:
    """Parts of characters all read alike; evaluations look for the likeliest of what is shown."""
    of = {7: Logprob(-0.5, 1, "\ufffd"), 8: Logprob(-1.5, 2, "a"), 9: Logprob(-3.0, 3, "\ufffd")}
    told = completion_logprobs([9], [of], ["\ufffd"], 0)
    assert told["token_logprobs"] == [-3.0]
    assert told["top_logprobs"] == [{"\ufffd": -0.5, "a": -1.5}]


@pytest.mark.parametrize("max_tokens", [0, 3])
def test_echo_scores_the_prompt(served: Served, offline: LLM, max_tokens: int) -> None:
    """With max_tokens = 0 nothing is generated: that is how evaluations score a text."""
    params = SamplingParams(temperature=0, max_tokens=3, logprobs=1, prompt_logprobs=1)
    expected = offline.generate("the end of it", params, use_tqdm=False)[0]
    answer = served.client().completions.create(
        model=MODEL, prompt="the end of it", temperature=0, max_tokens=max_tokens, logprobs=1, echo=True
    )
    (choice,) = answer.choices
    assert expected.prompt_logprobs is not None
    told = choice.logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.token_logprobs[0] is None
    assert len(told.token_logprobs) == len(expected.prompt_token_ids) + max_tokens
    pairs = zip(expected.prompt_logprobs[1:], expected.prompt_token_ids[1:], strict=True)
    wanted = [of[token].logprob for of, token in pairs if of is not None]
    assert told.token_logprobs[1 : len(wanted) + 1] == pytest.approx(wanted)
    text = "" if not max_tokens else expected.outputs[0].text
    assert choice.text == "the end of it" + text
    assert answer.usage is not None
    assert answer.usage.completion_tokens == max_tokens


def test_models(served: Served) -> None:
    client = served.client()
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "outrider"
    with pytest.raises(
        openai.NotFoundError, match="the model 'gpt-5' does not exist; this server has 'tiny'"
    ):
        client.models.retrieve("gpt-5")


def test_errors(served: Served) -> None:
    client = served.client()
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-5", messages=MESSAGES)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="top_p = 0") as bad:
        client.chat.completions.create(model=MODEL, messages=MESSAGES, top_p=0)
    assert bad.value.param == "top_p"
    with pytest.raises(openai.BadRequestError, match="the prompt has 2000 tokens; with max_model_len = 1024"):
        client.completions.create(model=MODEL, prompt=[5] * 2000)


def test_an_error_in_a_stream(served: Served) -> None:
    """Sampling parameters that leave nothing to choose, found out after some tokens."""
    word = "".join(served.service.prompts.pieces_of([40, 40]))
    stream = served.client().completions.create(
        model=MODEL, prompt="the end", temperature=0, max_tokens=9, stream=True,
        extra_body={"allowed_token_ids": [40], "bad_words": [word]},
    )  # fmt: skip
    with pytest.raises(openai.APIError, match="leave no token to choose"):
        list(stream)


def test_prompt_logprobs_and_token_ids(served: Served, offline: LLM) -> None:
    """vLLM's fields; the prompt gets no special tokens where that is asked for."""
    params = SamplingParams(temperature=0, max_tokens=4, prompt_logprobs=2)
    expected = offline.generate("the end", params, use_tqdm=False)[0]
    body = {"prompt_logprobs": 2, "return_token_ids": True, "priority": -1, "add_special_tokens": False}
    client = served.client()
    answer = client.completions.create(
        model=MODEL, prompt="the end", temperature=0, max_tokens=4, extra_body=body
    )
    choice = answer.model_dump()["choices"][0]
    assert tuple(choice["token_ids"]) == expected.outputs[0].token_ids
    assert tuple(choice["prompt_token_ids"]) == expected.prompt_token_ids
    assert expected.prompt_logprobs is not None
    for told, wanted in zip(choice["prompt_logprobs"], expected.prompt_logprobs, strict=True):
        assert (told is None) == (wanted is None)
        for token, logprob in (wanted or {}).items():
            form = told[str(token)]
            assert (form["rank"], form["decoded_token"]) == (logprob.rank, logprob.decoded_token)
            assert form["logprob"] == pytest.approx(logprob.logprob)
    del body["add_special_tokens"]
    chat = client.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=2, extra_body=body)
    told = chat.model_dump()
    prompt = offline.chat_prompt(AS_TEMPLATES_SEE_THEM)
    assert told["prompt_token_ids"] == prompt
    assert len(told["prompt_logprobs"]) == len(prompt)
    assert len(told["choices"][0]["token_ids"]) == 2


def test_speculation_metrics(served: Served) -> None:
    """On request only, under vLLM's names; the counts agree with each other."""
    client = served.client()
    fields: dict[str, Any] = {"model": MODEL, "prompt": "the end", "temperature": 0, "max_tokens": 40}
    plain = client.completions.create(**fields)
    assert "metrics" not in plain.model_dump()
    body = {"speculation_metrics": True}
    for answer in (
        client.completions.create(**fields, extra_body=body),
        list(client.completions.create(**fields, extra_body=body, stream=True))[-1],
    ):
        told = answer.model_dump()["metrics"]["speculative_decoding"]
        assert told["num_spec_tokens"] == 3
        assert sum(told["acceptance_histogram"]) == told["num_spec_steps"] > 0
        accepted = sum(n * drafts for n, drafts in enumerate(told["acceptance_histogram"]))
        assert accepted == told["num_accepted_draft_tokens"] <= told["num_draft_tokens"]
        assert told["mean_acceptance_length"] == 1 + accepted / told["num_spec_steps"]
        assert told["draft_acceptance_rate"] == accepted / told["num_draft_tokens"]
    off = client.completions.create(**fields, extra_body=body | {"num_speculative_tokens": 0}).model_dump()
    assert off["metrics"]["speculative_decoding"]["num_draft_tokens"] == 0
    assert off["choices"][0]["text"] == plain.choices[0].text
