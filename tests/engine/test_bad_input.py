"""Bad input gives one clear error, and harms no other request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError, ModelError, RequestError, RequestsFailed, SamplingParams
from outrider import config as configuration
from outrider.params import LONGEST_DRAFT
from tests.engine.helpers import BLOCK, PROMPTS, expected, load, token_ids
from tests.factories import tiny_config, tiny_tokenizer, write_model

GREEDY = SamplingParams(temperature=0, max_tokens=8)


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("", "the prompt is empty"),
        ([], "the prompt is empty"),
        ([1] * 1024, "the prompt has 1024 tokens; with max_model_len = 1024 it can have 1023"),
        ([5, 9999], "token id 9999 at position 1 of the prompt is not in the vocabulary"),
        ([-1], "token id -1 at position 0"),
        ([5, 2**64], "token id 18446744073709551616 at position 1"),
        ([10**5000], "token id a number of thousands of digits at position 0"),
        ([5, 6.0], "6.0 at position 1 of the prompt is no token id; give integers"),
        ([5, None], "None at position 1 of the prompt is no token id"),
        ([5, "6"], "'6' at position 1 of the prompt is no token id"),
        ({"text": "x"}, r"a prompt has the keys \['text'\]"),
        ({"prompt": 5}, "a prompt is 5; give text, a list of token ids, or a mapping"),
        ("a\ud800", "the prompt holds half of a surrogate pair"),
    ],
)
def test_bad_prompts(target: str, prompt: Any, reason: str) -> None:
    llm = load(target)
    with pytest.raises(RequestError, match=reason):
        llm.generate([prompt] if prompt == [] else prompt, GREEDY, use_tqdm=False)
    with pytest.raises(RequestsFailed, match=f"1 of 3 requests failed.*prompt 1: .*{reason}") as caught:
        llm.generate([PROMPTS[0], prompt, PROMPTS[1]], GREEDY, use_tqdm=False)
    first, bad, last = caught.value.outputs
    assert bad is None
    assert first is not None
    assert last is not None
    assert token_ids(first) == token_ids(expected(target, PROMPTS[0], GREEDY))
    assert token_ids(last) == token_ids(expected(target, PROMPTS[1], GREEDY))
    assert not llm.engine.unfinished


@pytest.mark.parametrize("name", ["allowed_token_ids", "logit_bias", "stop_token_ids"])
def test_unknown_token_ids_in_parameters(target: str, name: str) -> None:
    value: Any = {9999: 1.0} if name == "logit_bias" else (9999,)
    with pytest.raises(RequestError, match=f"{name} holds token id 9999; the model's ids are 0 to"):
        load(target).generate(PROMPTS[0], SamplingParams(**{name: value, "min_tokens": 1}), use_tqdm=False)


@pytest.mark.parametrize("n", [16_385, 2**31, 2**64, 10**30])
def test_more_sequences_than_any_request_has(target: str, n: int) -> None:
    with pytest.raises(RequestError, match=r"^n = .*: a request can have 16384 sequences at most$"):
        load(target).generate(PROMPTS[0], SamplingParams(n=n), use_tqdm=False)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"speculativ_model": "ngram"}, "no argument 'speculativ_model'; did you mean 'speculative_model'"),
        ({"speculative_model": "ngram", "num_speculative_tokens": -1}, "num_speculative_tokens = -1"),
        ({"num_speculative_tokens": 3}, "without speculative_model"),
        (
            {"speculative_model": "ngram", "speculative_config": {"method": "ngram"}},
            "speculative_config and speculative_model are both given",
        ),
        ({"speculative_config": {"method": "ngram", "model": "x"}}, "no other method takes one"),
        ({"speculative_config": {"method": "ngrams"}}, "method = 'ngrams'"),
        ({"speculative_config": {"metod": "ngram"}}, "did you mean 'method'"),
        (
            {"speculative_model": "ngram", "prompt_lookup_min": 5, "prompt_lookup_max": 4},
            "prompt_lookup_min = 5 is more than",
        ),
        ({"max_model_len": 100_000}, "max_model_len = 100000 is more than the 1024 positions"),
        ({"max_model_len": 200, "kv_cache_memory": 20_000}, "max_model_len = 200 needs kv_cache_memory of"),
        ({"kv_cache_memory": 100}, "kv_cache_memory = 100 bytes holds no block"),
        ({"kv_cache_memory": BLOCK // 16, "block_size": 1}, "384 bytes holds 1 position; it needs 768 bytes"),
        ({"kv_cache_memory": 2**62, "max_num_seqs": 10**9, "max_num_batched_tokens": 10**9}, "lower one of"),
        ({"max_model_len": 1}, "max_model_len = 1: give 2 at least"),
        ({"max_model_len": 1, "block_size": 1, "speculative_model": "ngram"}, "max_model_len = 1: give 2 at"),
        ({"kv_cache_memory": "much"}, "kv_cache_memory = 'much'"),
        ({"device": "abacus"}, "device = 'abacus' cannot be used"),
        ({"dtype": "int3"}, "dtype = 'int3'"),
        ({"max_num_batched_tokens": 2}, "max_num_batched_tokens = 2 is less than max_num_seqs"),
    ],
)
def test_bad_options(target: str, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        LLM(target, **options)
    assert reason in str(caught.value)


TINY = [
    # bytes of cache in positions, block size, sequences, rows, longest
    (2, 1, 1, 1, None),
    (2, 1, 1, 1, 2),
    (3, 3, 2, 2, None),
    (5, 1, 3, 3, 5),
    (6, 2, 3, 512, 6),
    (16, 16, 1, 1, 3),
    (40, 7, 8, 8, None),
    (1000, 1000, 2, 3, 17),
    (5000, 5000, 1, 512, 1024),
]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("drafter", [None, "ngram", "draft", "head"])
@pytest.mark.parametrize(("positions", "block", "sequences", "rows", "longest"), TINY)
def test_the_tiniest_settings_work(
    target: str,
    drafter: str | None,
    positions: int,
    block: int,
    sequences: int,
    rows: int,
    longest: int | None,
    request: pytest.FixtureRequest,
) -> None:
    """With the longest drafts, several sequences, and prompts from one token to as many as there may be."""
    options: dict[str, Any] = {}
    if drafter is not None:
        name = drafter if drafter == "ngram" else request.getfixturevalue(drafter)
        options = {"drafter": name, "num_speculative_tokens": LONGEST_DRAFT}
    room = 2 if drafter in ("draft", "head") else 1  # the head's cache is smaller
    llm = load(
        target,
        **options,
        kv_cache_memory=BLOCK // 16 * positions * room,
        block_size=block,
        max_num_seqs=sequences,
        max_num_batched_tokens=rows,
        max_model_len=longest,
    )
    most = llm.engine.max_model_len
    prompts = [tuple(20 + i % 200 for i in range(n)) for n in sorted({1, most // 2, most - 1})]
    for temperature in (0.0, 1.0):
        params = SamplingParams(temperature=temperature, seed=1, max_tokens=12, n=3, ignore_eos=True)
        for prompt, output in zip(prompts, llm.generate(prompts, params, use_tqdm=False), strict=True):
            short = params.model_copy(update={"max_tokens": min(12, most - len(prompt))})
            assert token_ids(output) == token_ids(expected(target, prompt, short))
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks
    with pytest.raises(RequestError, match=f"the prompt has {most} tokens"):
        llm.generate([[5] * most], GREEDY, use_tqdm=False)


def test_what_has_no_effect_is_warned_of_where_it_is_given(target: str) -> None:
    with pytest.warns(UserWarning, match="use_v2_block_manager has no effect") as warned:
        LLM(target, use_v2_block_manager=True)
    assert [warning.filename for warning in warned] == [__file__]


def test_both_forms_mean_the_same(target: str, draft: str) -> None:
    flat = configuration.resolve(target, speculative_model=draft, num_speculative_tokens=3)
    mapping = {"method": "draft_model", "model": draft, "num_speculative_tokens": 3}
    assert configuration.resolve(target, speculative_config=mapping) == flat
    flat = configuration.resolve(target, speculative_model="ngram", prompt_lookup_max=3)
    mapping = {"method": "ngram", "prompt_lookup_max": 3}
    assert configuration.resolve(target, speculative_config=mapping) == flat


def test_draft_with_another_vocabulary(target: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer(extra=("surplus",))
    write_model(tmp_path, tiny_config(vocab_size=len(tokenizer)), tokenizer=tokenizer)
    size = len(tiny_tokenizer())
    with pytest.raises(
        ModelError,
        match=f"token id {size} is beyond the {size} rows of the table in the target .* and 'surplus' in the",
    ):
        LLM(target, speculative_model=str(tmp_path))


def test_draft_with_padded_embeddings_is_fine(target: str, tmp_path: Path) -> None:
    """Models with one tokenizer may have more or fewer rows of embeddings than each other."""
    write_model(tmp_path, tiny_config(vocab_size=len(tiny_tokenizer()) + 13))
    for acceptance in ("coupled", "standard"):
        llm = load(target, str(tmp_path), num_speculative_tokens=3, acceptance=acceptance)
        output = llm.generate(PROMPTS[0], GREEDY, use_tqdm=False)[0]
        assert token_ids(output) == token_ids(expected(target, PROMPTS[0], GREEDY))


def test_draft_with_a_shorter_context(target: str, tmp_path: Path) -> None:
    """Past its context the draft model falls silent; the target goes on."""
    write_model(tmp_path, tiny_config(max_position_embeddings=30))
    llm = load(target, str(tmp_path), num_speculative_tokens=3)
    params = SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
    output = llm.generate(PROMPTS[1], params, use_tqdm=False)[0]
    assert token_ids(output) == token_ids(expected(target, PROMPTS[1], params))
    assert 0 < output.outputs[0].speculation.drafts < 30


def test_output_ends_with_the_context(target: str, draft: str) -> None:
    llm = load(target, draft, num_speculative_tokens=5, max_model_len=40)
    params = SamplingParams(temperature=0, max_tokens=None, ignore_eos=True)
    completion = llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs[0]
    assert completion.finish_reason == "length"
    assert len(completion.token_ids) == 40 - len(PROMPTS[0])


def test_one_parameter_set_too_few(target: str) -> None:
    with pytest.raises(ConfigError, match="2 prompts with 1 sampling_params"):
        load(target).generate([[5], [6]], [GREEDY], use_tqdm=False)


def test_inputs_of_every_kind(target: str) -> None:
    llm = load(target)
    ids = llm.tokenizer.encode("the end")
    forms: list[Any] = ["the end", ids, {"prompt": "the end"}, {"prompt_token_ids": ids}]
    outputs = [llm.generate(form, GREEDY, use_tqdm=False)[0] for form in forms]
    outputs += llm.generate(forms, GREEDY, use_tqdm=False)
    assert len({output.outputs[0].token_ids for output in outputs}) == 1
    assert [output.prompt for output in outputs[:4]] == ["the end", None, "the end", None]


def test_chat(target: str) -> None:
    llm = load(target)
    messages = [{"role": "user", "content": "the end"}]
    text = "<|im_start|>user\nthe end<|im_end|>\n<|im_start|>assistant\n"
    one = llm.chat(messages, GREEDY, use_tqdm=False)[0]
    assert llm.tokenizer.decode(one.prompt_token_ids) == text
    several = llm.chat([messages, messages], GREEDY, use_tqdm=False)
    assert {output.outputs[0].text for output in several} == {one.outputs[0].text}
