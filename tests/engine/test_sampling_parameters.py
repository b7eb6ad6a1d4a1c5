"""Every sampling parameter gives with speculation what it gives without."""

from __future__ import annotations

from typing import Any

import pytest

from outrider import LLM, RequestOutput, RequestsFailed, SamplingParams
from tests.engine.helpers import PROMPTS, expected, load, token_ids

EOS = 2
CASES: dict[str, dict[str, Any]] = {
    "top_k": {"temperature": 1.0, "top_k": 5},
    "top_p": {"temperature": 1.0, "top_p": 0.6},
    "min_p": {"temperature": 1.0, "min_p": 0.2},
    "all three": {"temperature": 0.8, "top_k": 20, "top_p": 0.8, "min_p": 0.05},
    "presence_penalty": {"temperature": 0.7, "presence_penalty": 1.5},
    "frequency_penalty": {"frequency_penalty": 2.0, "allowed_token_ids": (7, 8, 9, 10)},
    "repetition_penalty": {"repetition_penalty": 1.7, "allowed_token_ids": (7, 8, 9, 10)},
    "logit_bias": {"logit_bias": {40: 6.0, 41: -100.0}, "temperature": 1.0},
    "allowed_token_ids": {"temperature": 1.0, "allowed_token_ids": (5, 6, 7)},
    "bad_words": {"bad_words": ("the", "a"), "logit_bias": {68: 5.0, 67: 5.0}, "temperature": 1.0},
    "min_tokens": {"min_tokens": 6, "logit_bias": {EOS: 100.0}},
    "min_tokens and stop token": {"min_tokens": 6, "stop_token_ids": (9,), "logit_bias": {9: 100.0}},
    "max_tokens": {"max_tokens": 1},
    "ends with EOS": {"logit_bias": {EOS: 12.0}, "temperature": 1.0},
    "ignore_eos": {"ignore_eos": True, "logit_bias": {EOS: 12.0}, "temperature": 1.0},
    "stop_token_ids": {"stop_token_ids": tuple(range(100, 180)), "temperature": 1.0},
    "include stop token": {
        "stop_token_ids": tuple(range(100, 180)),
        "temperature": 1.0,
        "include_stop_str_in_output": True,
    },
    "stop": {"stop": ("e", "a", "!"), "temperature": 1.0},
    "include_stop_str_in_output": {
        "stop": ("e", "a", "!"),
        "temperature": 1.0,
        "include_stop_str_in_output": True,
    },
    "structured_outputs": {
        "structured_outputs": {"regex": "([a-c]{2,5} )+[.!]"},
        "temperature": 1.0,
        "logit_bias": {68: 3.0},
        "frequency_penalty": 0.3,
        "n": 2,
    },
    "n": {"n": 3, "temperature": 1.0},
    "logprobs": {"logprobs": 4, "temperature": 1.0},
    "prompt_logprobs": {"prompt_logprobs": 3},
    "skip_special_tokens": {"skip_special_tokens": False, "ignore_eos": True, "logit_bias": {EOS: 9.0}},
}


@pytest.fixture(scope="module", params=["ngram", "draft", "target", "head"])
def llm(request: pytest.FixtureRequest, target: str) -> LLM:
    drafter = request.param if request.param == "ngram" else request.getfixturevalue(request.param)
    return load(target, drafter, num_speculative_tokens=4)


def assert_same(output: RequestOutput, plain: RequestOutput) -> None:
    """Equal in all but statistics and times; log-probabilities to rounding."""
    assert len(output.outputs) == len(plain.outputs)
    for a, b in zip(output.outputs, plain.outputs, strict=True):
        assert (a.token_ids, a.text) == (b.token_ids, b.text)
        assert (a.finish_reason, a.stop_reason) == (b.finish_reason, b.stop_reason)
        assert_same_logprobs(a.logprobs, b.logprobs)
        assert a.cumulative_logprob == pytest.approx(b.cumulative_logprob, abs=1e-3)
    assert_same_logprobs(output.prompt_logprobs, plain.prompt_logprobs)


def assert_same_logprobs(a: Any, b: Any) -> None:
    assert (a is None) == (b is None)
    for ours, theirs in zip(a or (), b or (), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert {t: (x.rank, x.decoded_token) for t, x in ours.items()} == {
                t: (x.rank, x.decoded_token) for t, x in theirs.items()
            }
            for token, logprob in ours.items():
                assert logprob.logprob == pytest.approx(theirs[token].logprob, abs=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_same_with_speculation(llm: LLM, target: str, case: str) -> None:
    settings = [
        SamplingParams(**({"max_tokens": 16, "temperature": 0.0, "seed": seed} | CASES[case]))
        for seed in range(len(PROMPTS))
    ]
    outputs = llm.generate(PROMPTS, settings, use_tqdm=False)
    for prompt, params, output in zip(PROMPTS, settings, outputs, strict=True):
        assert_same(output, expected(target, prompt, params))


def plain(target: str, case: str, prompt: tuple[int, ...] = PROMPTS[0], **others: Any) -> RequestOutput:
    settings = {"max_tokens": 16, "temperature": 0.0, "seed": 1} | CASES[case] | others
    return expected(target, prompt, SamplingParams(**settings))


@pytest.mark.parametrize("drafter", ["draft", "head"])
def test_drafts_go_on_behind_tokens_that_no_edit_changes(
    target: str, drafter: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    """Parameters may have something to say of a later token: such a draft grows in several calls."""
    llm = load(target, request.getfixturevalue(drafter), num_speculative_tokens=4)
    params = SamplingParams(
        temperature=0.8, seed=1, max_tokens=20, ignore_eos=True, min_tokens=2, bad_words=("zebra",)
    )
    output = llm.generate(PROMPTS[0], params, use_tqdm=False)[0]
    assert token_ids(output) == token_ids(expected(target, PROMPTS[0], params))
    assert len(output.outputs[0].speculation.drafted_by_position) == 4
    assert not caplog.records


def test_the_cases_do_what_they_say(target: str) -> None:
    """So that equality above is not equality of two runs that both ignore the parameter."""
    assert set(plain(target, "allowed_token_ids").outputs[0].token_ids) <= {5, 6, 7}
    assert 41 not in plain(target, "logit_bias").outputs[0].token_ids
    assert 40 in plain(target, "logit_bias").outputs[0].token_ids
    assert len(plain(target, "min_tokens").outputs[0].token_ids) == 7
    assert plain(target, "min_tokens").outputs[0].finish_reason == "stop"
    assert plain(target, "min_tokens and stop token").outputs[0].stop_reason == 9
    assert plain(target, "max_tokens").outputs[0].finish_reason == "length"
    assert len(plain(target, "ignore_eos").outputs[0].token_ids) == 16
    assert EOS in plain(target, "ignore_eos").outputs[0].token_ids
    assert "<|im_end|>" in plain(target, "skip_special_tokens").outputs[0].text
    ends = plain(target, "ends with EOS", max_tokens=200).outputs[0]
    assert (ends.finish_reason, ends.stop_reason, ends.token_ids[-1]) == ("stop", None, EOS)

    stopped = [plain(target, "stop", prompt, max_tokens=200).outputs[0] for prompt in PROMPTS]
    assert any(o.finish_reason == "stop" and o.stop_reason in ("e", "a", "!") for o in stopped)
    assert not any(set("ea!") & set(o.text) for o in stopped)
    with_stop = [
        plain(target, "include_stop_str_in_output", prompt, max_tokens=200).outputs[0] for prompt in PROMPTS
    ]
    for a, b in zip(stopped, with_stop, strict=True):
        assert b.text == a.text + str(b.stop_reason)

    samples = plain(target, "n").outputs
    assert len({o.token_ids for o in samples}) == 3
    assert [o.index for o in samples] == [0, 1, 2]

    penalised = plain(target, "frequency_penalty").outputs[0].token_ids
    assert {penalised.count(token) for token in (7, 8, 9, 10)} != {16, 0}
    bad = plain(target, "bad_words").outputs[0].text
    assert "the" not in bad
    assert "a" not in bad


def test_logprobs_are_of_the_raw_distribution(target: str) -> None:
    completion = plain(target, "logprobs").outputs[0]
    assert completion.logprobs is not None
    assert len(completion.logprobs) == len(completion.token_ids)
    for token, logprobs in zip(completion.token_ids, completion.logprobs, strict=True):
        assert token in logprobs
        assert 4 <= len(logprobs) <= 5
        ranked = sorted(logprobs.values(), key=lambda entry: entry.rank)
        assert [entry.logprob for entry in ranked] == sorted((e.logprob for e in ranked), reverse=True)
    total = sum(
        logprobs[t].logprob for t, logprobs in zip(completion.token_ids, completion.logprobs, strict=True)
    )
    assert completion.cumulative_logprob == pytest.approx(total)


def test_prompt_logprobs_predict_each_prompt_token(target: str) -> None:
    """Row i of a prompt predicts token i + 1: as generating greedily from the prefix would."""
    prompt = PROMPTS[1]
    output = plain(target, "prompt_logprobs", prompt)
    assert output.prompt_logprobs is not None
    assert output.prompt_logprobs[0] is None
    for position in range(1, len(prompt)):
        entries = output.prompt_logprobs[position]
        assert entries is not None
        best = next(token for token, entry in entries.items() if entry.rank == 1)
        greedy = expected(
            target, prompt[:position], SamplingParams(temperature=0, max_tokens=1, ignore_eos=True)
        )
        assert greedy.outputs[0].token_ids == (best,)


def test_unseeded_requests_differ(target: str) -> None:
    llm = load(target)
    a, b = llm.generate([PROMPTS[0]] * 2, SamplingParams(temperature=1.0, max_tokens=12), use_tqdm=False)
    assert a.outputs[0].token_ids != b.outputs[0].token_ids


def test_no_token_left_ends_one_request_only(target: str, draft: str) -> None:
    """Parameters that leave nothing to choose fail that request, by name, and no other."""
    llm = load(target, draft, num_speculative_tokens=3)
    word = llm.tokenizer.decode([70])
    impossible = SamplingParams(
        allowed_token_ids=(70,), bad_words=(word + word,), temperature=0, max_tokens=8
    )
    fine = SamplingParams(temperature=0, max_tokens=8)
    with pytest.raises(Exception, match="leave no token to choose") as caught:
        llm.generate([PROMPTS[0], PROMPTS[1]], [impossible, fine], use_tqdm=False)
    first, second = caught.value.outputs  # type: ignore[attr-defined]
    assert first.outputs[0].finish_reason == "error"
    assert first.outputs[0].token_ids == (70,)
    assert second.outputs[0].token_ids == expected(target, PROMPTS[1], fine).outputs[0].token_ids
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks


@pytest.mark.parametrize("acceptance", ["standard", "block"])
def test_a_draft_into_a_dead_end_does_not_bias_the_draw(target: str, acceptance: str) -> None:
    """After one of two tokens nothing is possible: it is drawn as often as it should be all the same."""
    llm = load(target, target, num_speculative_tokens=2, acceptance=acceptance)
    free, dead = 20, 21
    a, b = llm.tokenizer.decode([free]), llm.tokenizer.decode([dead])
    scores = {
        token: entry.logprob
        for token, entry in expected(target, PROMPTS[0], SamplingParams(max_tokens=1, logprobs=300))
        .outputs[0]
        .logprobs[0]  # type: ignore[index]
        .items()
    }
    even = {dead: scores[free] - scores[dead]}  # brings both to one half
    params = SamplingParams(
        n=600, seed=5, max_tokens=3, logit_bias=even, allowed_token_ids=(free, dead), bad_words=(b + a, b + b)
    )
    with pytest.raises(RequestsFailed) as caught:
        llm.generate(PROMPTS[0], params, use_tqdm=False)
    output = caught.value.outputs[0]
    assert output is not None
    share = sum(completion.token_ids[0] == free for completion in output.outputs) / params.n
    assert share == pytest.approx(0.5, abs=0.1)  # five standard deviations; dropping the token gives 0.75
