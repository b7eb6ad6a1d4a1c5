"""Sampling parameters: defaults, bounds, and messages that say what is wrong."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outrider.errors import ConfigError, OutriderError
from outrider.params import LOGIT_BIAS_LIMIT, LONGEST_DRAFT, MOST_CHARACTERS, SamplingParams

NUMBERS = [
    "temperature",
    "top_p",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
]

REFUSED: list[tuple[str, Any]] = [
    *((name, value) for name in NUMBERS for value in (math.nan, math.inf, -math.inf, "hot", None)),
    ("n", 0),
    ("temperature", -0.1),
    ("top_p", 0),
    ("top_p", -0.5),
    ("top_p", 1.01),
    ("top_k", -2),
    ("top_k", 1.5),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("presence_penalty", 2.1),
    ("presence_penalty", -2.1),
    ("frequency_penalty", 2.1),
    ("frequency_penalty", -2.1),
    ("repetition_penalty", 0),
    ("repetition_penalty", -1),
    ("repetition_penalty", 1e-46),  # 0 in float32
    ("repetition_penalty", 1e39),
    ("allowed_token_ids", []),
    ("allowed_token_ids", "12"),
    ("bad_words", 5),
    ("stop", 5),
    ("stop_token_ids", "eos"),
    ("stop_token_ids", 5),
    ("min_tokens", -1),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("max_tokens", 2.5),
    ("seed", "lucky"),
    ("logprobs", -1),
    ("prompt_logprobs", -1),
    ("num_speculative_tokens", -1),
    *(("num_speculative_tokens", value) for value in (LONGEST_DRAFT + 1, 2**31, 2**56, 2**64, 10**30)),
    *((name, [value]) for name in ("stop_token_ids", "allowed_token_ids") for value in (2**31, 2**64)),
]

ACCEPTED: list[tuple[str, Any]] = [
    ("temperature", 0),
    ("top_p", 1),
    ("top_p", 5e-324),
    ("top_k", -1),
    ("top_k", 10**9),
    ("min_p", 0),
    ("min_p", 1),
    ("presence_penalty", 2),
    ("presence_penalty", -2),
    ("frequency_penalty", 2),
    ("frequency_penalty", -2),
    ("repetition_penalty", 0.01),
    ("logit_bias", {3: -LOGIT_BIAS_LIMIT, 4: LOGIT_BIAS_LIMIT}),
    ("max_tokens", 1),
    ("max_tokens", None),
    ("min_tokens", 16),
    ("seed", -(2**80)),
    ("logprobs", 0),
    ("num_speculative_tokens", 0),
    ("num_speculative_tokens", LONGEST_DRAFT),
    *((name, value) for name in ("max_tokens", "top_k", "seed", "logprobs") for value in (2**64, 10**30)),
]


@pytest.mark.parametrize(("name", "value"), REFUSED)
def test_value_out_of_range_is_refused_by_name_and_value(name: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        SamplingParams(**{name: value})
    first = value[0] if isinstance(value, list) and value else value
    assert f"{name} = {value!r}" in str(refusal.value) or f"{name}.0 = {first!r}" in str(refusal.value)


@pytest.mark.parametrize(("name", "value"), ACCEPTED)
def test_value_at_its_bound_is_kept(name: str, value: Any) -> None:
    assert getattr(SamplingParams(**{name: value}), name) == value


@pytest.mark.parametrize("name", ["stop", "bad_words"])
def test_empty_strings_are_refused(name: str) -> None:
    values: tuple[Any, ...] = ("", ["a", ""])
    for value in values:
        with pytest.raises(ConfigError, match=rf"{name}\.\d = ''"):
            SamplingParams(**{name: value})


@pytest.mark.parametrize("name", ["stop", "bad_words"])
def test_words_are_bounded_in_characters_together(name: str) -> None:
    half = "ab" * (MOST_CHARACTERS // 4)
    values: dict[str, Any] = {name: [half, half]}
    assert getattr(SamplingParams(**values), name) == (half, half)
    values[name].append("c")
    with pytest.raises(ConfigError) as refusal:
        SamplingParams(**values)
    assert f"they have {MOST_CHARACTERS + 1} characters together, and can have {MOST_CHARACTERS}" in str(
        refusal.value
    )
    assert len(str(refusal.value)) < 400, "what is quoted of them is short"


def test_a_number_that_python_does_not_write_is_refused_all_the_same() -> None:
    with pytest.raises(ConfigError, match=r"^num_speculative_tokens = a number of thousands of "):
        SamplingParams(num_speculative_tokens=10**5000)


@pytest.mark.parametrize("value", [LOGIT_BIAS_LIMIT + 1, -LOGIT_BIAS_LIMIT - 1, math.nan])
def test_logit_bias_out_of_range_is_refused_by_its_token(value: float) -> None:
    with pytest.raises(ConfigError, match=rf"logit_bias\.7 = {value}"):
        SamplingParams(logit_bias={3: 1.0, 7: value})


def test_logit_bias_of_what_is_no_token_id_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"logit_bias.*'eos'"):
        SamplingParams(logit_bias={"eos": 1.0})  # type: ignore[dict-item]


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match=r"temperature = -1: .*; top_p = 2: "):
        SamplingParams(temperature=-1, top_p=2)


@given(st.integers(0, 50), st.none() | st.integers(1, 50))
def test_min_tokens_is_at_most_max_tokens(min_tokens: int, max_tokens: int | None) -> None:
    if max_tokens is None or min_tokens <= max_tokens:
        assert SamplingParams(min_tokens=min_tokens, max_tokens=max_tokens).min_tokens == min_tokens
    else:
        with pytest.raises(ConfigError, match=f"^min_tokens = {min_tokens} .* max_tokens = {max_tokens};"):
            SamplingParams(min_tokens=min_tokens, max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("temprature", "temperature"),
        ("topk", "top_k"),
        ("max_token", "max_tokens"),
        ("logit_biases", "logit_bias"),
    ],
)
def test_unknown_name_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    values: dict[str, Any] = {wrong: 1}
    with pytest.raises(ConfigError, match=f"SamplingParams has no argument '{wrong}'; .* '{right}'"):
        SamplingParams(**values)


def test_unknown_name_like_no_other_is_answered_with_all() -> None:
    with pytest.raises(ConfigError, match=r"'xyzzy'; valid are .*temperature") as refusal:
        SamplingParams(xyzzy=1)  # type: ignore[call-arg]
    assert all(name in str(refusal.value) for name in SamplingParams.model_fields)


def test_refusal_is_a_value_error_of_ours() -> None:
    assert issubclass(ConfigError, ValueError)
    assert issubclass(ConfigError, OutriderError)


def test_parameters_are_frozen() -> None:
    params = SamplingParams()
    with pytest.raises(ValidationError, match="frozen"):
        params.temperature = 0.5
    assert params.temperature == 1.0


def test_parameters_do_not_share_what_they_were_made_of() -> None:
    bias, stop = {1: 2.0}, ["a"]
    params = SamplingParams(logit_bias=bias, stop=stop)  # type: ignore[arg-type]
    bias[1], stop[0] = 5.0, "b"
    assert params.logit_bias == {1: 2.0}
    assert params.stop == ("a",)


def test_one_string_or_many_stop_an_output() -> None:
    assert SamplingParams(stop="END").stop == ("END",)  # type: ignore[arg-type]
    assert SamplingParams(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]
    assert SamplingParams(stop=None, bad_words=None, stop_token_ids=None) == SamplingParams()  # type: ignore[arg-type]


def test_defaults_sample_the_plain_distribution() -> None:
    params = SamplingParams()
    assert (params.temperature, params.top_p, params.top_k, params.min_p) == (1.0, 1.0, 0, 0.0)
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (0, 0, 1)
    assert (params.n, params.max_tokens, params.min_tokens, params.seed) == (1, 16, 0, None)
