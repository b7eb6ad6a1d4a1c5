"""The engine's configuration: both forms of speculation, bounds, and nothing lost on the way."""

from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from outrider.config import EngineConfig, resolve
from outrider.errors import ConfigError
from outrider.option_types import UNITS, parse_bytes
from outrider.params import LONGEST_DRAFT
from outrider.speculative_config import DrafterConfig, SpeculativeConfig

SPECULATION: dict[str, Any] = {
    "num_speculative_tokens": 3,
    "workload": "structured",
    "prompt_lookup_min": 1,
    "prompt_lookup_max": 7,
    "suffix_memory": 12345,
    "suffix_file": "texts",
    "acceptance": "block",
    "draft_quantization": "int4",
    "draft_vocab_size": 999,
    "draft_vocabulary": "text",
}
ENGINE = {
    "tokenizer": "words",
    "revision": "v1",
    "chat_template": "chat.jinja",
    "dtype": "bfloat16",
    "quantization": "int8",
    "device": "cpu",
    "backend": "native",
    "num_threads": 3,
    "instruction_set": "portable",
    "kv_cache_dtype": "bfloat16",
    "max_model_len": 77,
    "max_num_seqs": 5,
    "max_num_batched_tokens": 33,
    "prompt_chunk_size": 21,
    "scheduling_policy": "fcfs",
    "kv_cache_memory": 12345,
    "memory_limit": 2**40,
    "gpu_memory_utilization": 0.7,
    "enforce_eager": True,
    "block_size": 8,
    "enable_prefix_caching": False,
    "seed": 9,
    "pooling": "mean",
    "generation_config": "vllm",
    "override_generation_config": {"top_k": 3},
}


def without(options: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key != name}


@pytest.mark.parametrize("speculation_left_out", ["num_speculative_tokens", "workload"])
@pytest.mark.parametrize("left_out", ["dtype", "quantization"])
def test_resolve_loses_nothing(left_out: str, speculation_left_out: str) -> None:
    """Each of these two excludes the other."""
    options, speculation = without(ENGINE, left_out), without(SPECULATION, speculation_left_out)
    resolved = resolve("target", speculative_model="draft", **speculation, **options)
    assert resolved.model_dump() == {
        "model": "target",
        "engine": "outrider",
        "stored_quantization": None,
        **options,
        left_out: EngineConfig.model_fields[left_out].default,
        "speculative": {
            "drafters": ({"method": "draft_model", "model": "draft", "quantization": None},),
            **speculation,
            speculation_left_out: SpeculativeConfig.model_fields[speculation_left_out].default,
        },
    }


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_quantization_beside_a_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(ConfigError, match=f"quantization = 'int4' and dtype = '{dtype}'.*; drop dtype to"):
        resolve("m", quantization="int4", dtype=dtype)


def test_the_test_above_knows_every_option() -> None:
    others = {"engine", "model", "speculative", "stored_quantization"}
    assert {*ENGINE, *others} == set(EngineConfig.model_fields)
    assert {*SPECULATION, "drafters"} == set(SpeculativeConfig.model_fields)
    assert set(DrafterConfig.model_fields) == {"method", "model", "quantization"}
    assert all(EngineConfig.model_fields[name].default != value for name, value in ENGINE.items())
    assert all(SpeculativeConfig.model_fields[name].default != value for name, value in SPECULATION.items())


@pytest.mark.parametrize("left_out", ["num_speculative_tokens", "workload"])
@pytest.mark.parametrize("name", ["ngram", "[ngram]"])
def test_both_forms_mean_the_same(name: str, left_out: str) -> None:
    of_models = {"draft_quantization", "draft_vocab_size", "draft_vocabulary"}
    speculation = {key: value for key, value in SPECULATION.items() if key not in {left_out, *of_models}}
    mapping = {"method": "ngram", **speculation}
    assert resolve("m", speculative_model=name, **speculation) == resolve("m", speculative_config=mapping)


def test_a_mapping_without_a_method_names_a_draft_model() -> None:
    flat, mapped = resolve("m", speculative_model="d"), resolve("m", speculative_config={"model": "d"})
    assert flat == mapped
    assert flat.speculative == SpeculativeConfig(drafters=(DrafterConfig(method="draft_model", model="d"),))
    assert flat.speculative.num_speculative_tokens == "auto"


def test_the_mapping_is_not_changed() -> None:
    mapping = {"model": "d"}
    resolve("m", speculative_config=mapping)
    assert mapping == {"model": "d"}


def test_without_options_nothing_is_drafted() -> None:
    assert resolve("m") == EngineConfig(model="m")
    assert resolve("m").speculative is None
    assert resolve("m", speculative_model=None, num_speculative_tokens=None) == EngineConfig(model="m")


@pytest.mark.parametrize(
    "option", [{"speculative_model": "ngram"}, *({k: v} for k, v in SPECULATION.items())]
)
def test_both_forms_at_once_are_refused(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"speculative_config and {next(iter(option))} are both given"):
        resolve("m", speculative_config={"method": "ngram"}, **option)


@pytest.mark.parametrize(("name", "value"), SPECULATION.items())
def test_speculation_without_a_drafter_is_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} given without speculative_model"):
        resolve("m", **{name: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("dtype", "int8"),
        ("max_model_len", 0),
        ("max_num_seqs", 0),
        ("max_num_seqs", -1),
        ("max_num_batched_tokens", 0),
        ("prompt_chunk_size", 0),
        ("kv_cache_memory", 0),
        ("kv_cache_memory", -1),
        ("kv_cache_memory", 1.5),
        ("kv_cache_memory", math.nan),
        ("kv_cache_memory", None),
        ("kv_cache_memory", "much"),
        ("kv_cache_memory", "5 TiBs"),
        ("kv_cache_memory", "-1MiB"),
        ("block_size", 0),
        ("num_threads", 0),
        ("num_threads", 1025),
        ("enable_prefix_caching", "perhaps"),
        ("seed", None),
        ("seed", 0.5),
    ],
)
def test_value_out_of_range_is_refused_by_name_and_value(option: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve("m", **{option: value})
    assert f"{option} = {value!r}" in str(refusal.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_speculative_tokens", -1),
        ("workload", "poetry"),
        ("prompt_lookup_min", 0),
        ("prompt_lookup_max", 0),
        ("acceptance", "hopeful"),
        ("draft_quantization", "int5"),
        ("draft_vocabulary", "other"),
    ],
)
def test_speculation_out_of_range_is_refused_in_both_forms(option: str, value: Any) -> None:
    for options in (
        {"speculative_model": "ngram", option: value},
        {"speculative_config": {"method": "ngram", option: value}},
    ):
        with pytest.raises(ConfigError) as refusal:
            resolve("m", **options)
        assert f"{option} = {value!r}" in str(refusal.value)


@pytest.mark.parametrize("value", [-1, "-1", "five", "", 2.5, math.inf, math.nan, [3]])
def test_a_bad_draft_length_is_refused_in_one_sentence(value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve("m", speculative_model="ngram", num_speculative_tokens=value)
    assert str(refusal.value) == f"num_speculative_tokens = {value!r}: give a number from 0 on, or 'auto'"


@pytest.mark.parametrize("value", [LONGEST_DRAFT + 1, "1025", 2**56, 2**64, 10**30, str(10**30)])
def test_a_draft_length_beyond_all_bounds_is_refused_with_the_bound(value: Any) -> None:
    for options in ({"speculative_model": "ngram"}, {"speculative_config": {"method": "ngram"}}):
        place = options.get("speculative_config", options)
        place["num_speculative_tokens"] = value  # type: ignore[index]
        with pytest.raises(ConfigError) as refusal:
            resolve("m", **options)
        assert str(refusal.value) == (
            f"num_speculative_tokens = {value!r}: give a number from 0 to {LONGEST_DRAFT}, or 'auto'"
        )


@pytest.mark.parametrize("value", [2**31, 2**63, 2**64, 10**30])
@pytest.mark.parametrize(
    "name", ["max_model_len", "max_num_seqs", "max_num_batched_tokens", "prompt_chunk_size", "block_size"]
)
def test_numbers_beyond_all_bounds_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ConfigError, match=f"^{name} = {value}: "):
        resolve("m", **{name: value})


@pytest.mark.parametrize("value", [65, 2**31, 10**30])
def test_lookup_lengths_are_bounded(value: int) -> None:
    """A match that is longer says nothing more."""
    with pytest.raises(ConfigError, match=f"^prompt_lookup_max = {value}: .* 64$"):
        resolve("m", speculative_model="ngram", prompt_lookup_max=value)


@pytest.mark.parametrize(("given", "meant"), [("5", 5), (0, 0), ("0", 0), ("auto", "auto"), (None, "auto")])
def test_draft_length_as_text(given: Any, meant: Any) -> None:
    """The command line's --set gives text."""
    resolved = resolve("m", speculative_model="ngram", num_speculative_tokens=given).speculative
    assert resolved is not None
    assert resolved.num_speculative_tokens == meant


@pytest.mark.parametrize("format", ["int8", "int4"])
def test_a_target_may_draft_for_itself(format: str) -> None:
    name = f"self:{format}"
    resolved = resolve("m", speculative_model=name)
    for mapping in (
        {"model": name},
        {"method": "draft_model", "model": name},
        {"method": "self", "model": name},
    ):
        assert resolve("m", speculative_config=mapping) == resolved
    assert resolved.speculative is not None
    assert [drafter.name for drafter in resolved.speculative.drafters] == [name]
    assert [drafter.method for drafter in resolved.speculative.drafters] == ["self"]
    with pytest.raises(ConfigError, match=f"^the drafter '{name}' is given twice; drop one$"):
        resolve("m", speculative_model=[name, name])
    with pytest.raises(ConfigError, match=f"^draft_quantization = 'int8' is for .* and '{name}' has none to"):
        resolve("m", speculative_model=name, draft_quantization="int8")


@pytest.mark.parametrize("name", ["self", "self:", "self:int3", "self:bfloat16"])
def test_a_target_drafts_for_itself_in_known_formats_only(name: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve("m", speculative_model=name)
    assert str(refusal.value) == (
        f"speculative_model = {name!r}: for the target's own weights at fewer bits give 'self:int8' or "
        "'self:int4'"
    )
    with pytest.raises(ConfigError, match=r"'self' needs the format to draft with"):
        resolve("m", speculative_config={"method": "self"})


@pytest.mark.parametrize("form", [list, tuple])
def test_drafters_in_their_order(form: Any) -> None:
    ngram, small = DrafterConfig(method="suffix"), DrafterConfig(method="draft_model", model="small")
    for names, meant in ((["ngram", "small"], (ngram, small)), (["small", "[ngram]"], (small, ngram))):
        assert resolve("m", speculative_model=form(names)).speculative == SpeculativeConfig(drafters=meant)
    assert resolve("m", speculative_model=form(["small"])) == resolve("m", speculative_model="small")


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (["ngram", "[ngram]"], "suffix"),
        (["suffix", "ngram"], "suffix"),
        (["d", "ngram", "d"], "d"),
        (("d", "d"), "d"),
    ],
)
def test_a_drafter_given_twice_is_refused(given: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=f"^the drafter '{name}' is given twice; drop one$"):
        resolve("m", speculative_model=given)


@pytest.mark.parametrize("given", [[], ()])
def test_no_drafter_at_all_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve("m", speculative_model=given)
    assert str(refusal.value) == (
        f"speculative_model = {given!r}: name one drafter at least, for example 'suffix'"
    )
    with pytest.raises(ConfigError, match=r"^drafters = \(\): "):
        SpeculativeConfig(drafters=())


@pytest.mark.parametrize("given", [["ngram", 5], [None], [["ngram"]], [""]])
def test_a_drafter_that_is_no_name_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"^(model|method) = "):
        resolve("m", speculative_model=given)


@pytest.mark.parametrize("drafters", ["ngram", ["ngram"]])
def test_draft_quantization_goes_with_weights_only(drafters: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve("m", speculative_model=drafters, draft_quantization="int8")
    assert str(refusal.value) == (
        "draft_quantization = 'int8' is for the weights of a draft model, and 'suffix' has none to load; "
        "drop it, or name a draft model"
    )
    speculative = resolve("m", speculative_model=["ngram", "d"], draft_quantization="int8").speculative
    assert speculative is not None
    assert speculative.draft_quantization == "int8"


@pytest.mark.parametrize("workload", ["structured", "creative"])
def test_workload_goes_with_an_automatic_length_only(workload: str) -> None:
    for auto in ({}, {"num_speculative_tokens": "auto"}):
        speculative = resolve("m", speculative_model="ngram", workload=workload, **auto).speculative
        assert speculative is not None
        assert speculative.workload == workload
    for length in (0, 4, "4"):
        with pytest.raises(ConfigError, match=f"^workload = '{workload}' sets bounds of .*; drop one$"):
            resolve("m", speculative_model="ngram", workload=workload, num_speculative_tokens=length)


def test_lookup_lengths_are_in_order() -> None:
    with pytest.raises(ConfigError, match=r"^prompt_lookup_min = 5 is more than prompt_lookup_max = 4;"):
        resolve("m", speculative_model="ngram", prompt_lookup_min=5, prompt_lookup_max=4)


@pytest.mark.parametrize(
    "mapping", [{}, {"method": "draft_model"}, {"method": "ngram", "model": "d"}, {"method": "eagle"}]
)
def test_method_and_model_agree(mapping: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="method = "):
        resolve("m", speculative_config=mapping)


@pytest.mark.parametrize("value", ["ngram", 5, ["ngram"]])
def test_speculative_config_is_a_mapping(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"speculative_config = .*: give a mapping"):
        resolve("m", speculative_config=value)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("max_num_seq", "max_num_seqs"),
        ("speculative_modl", "speculative_model"),
        ("kv_cache_memori", "kv_cache_memory"),
        ("num_speculative_token", "num_speculative_tokens"),
    ],
)
def test_unknown_option_is_answered_with_the_nearest(wrong: str, right: str) -> None:
    with pytest.raises(ConfigError, match=f"LLM has no argument '{wrong}'; did you mean '{right}'"):
        resolve("m", **{wrong: 1})


def test_unknown_key_of_the_mapping_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"speculative_config has no argument 'methd'; .* 'method'"):
        resolve("m", speculative_config={"methd": "ngram"})


def test_the_resolved_field_is_no_option() -> None:
    with pytest.raises(ConfigError, match="LLM has no argument 'speculative'"):
        resolve("m", speculative=SpeculativeConfig(drafters=(DrafterConfig(method="suffix"),)))


def test_configuration_is_frozen() -> None:
    resolved = resolve("m", speculative_model="ngram")
    assert resolved.speculative is not None
    with pytest.raises(ValidationError, match="frozen"):
        resolved.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        resolved.speculative.num_speculative_tokens = 3


def test_what_changes_no_answer_is_taken_with_one_warning() -> None:
    given = {"use_v2_block_manager": True, "swap_space": 0.5, "tensor_parallel_size": 1}
    with pytest.warns(UserWarning, match=f"^{', '.join(given)} have no effect: LLM takes") as warned:
        assert resolve("m", **given) == EngineConfig(model="m")
    assert [warning.filename for warning in warned] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resolve("m", **dict.fromkeys(given)) == EngineConfig(model="m")


@pytest.mark.parametrize(
    ("name", "value", "instead"),
    [
        ("tensor_parallel_size", 2, "give 1"),
        ("pipeline_parallel_size", 2, "give 1"),
        ("skip_tokenizer_init", True, "detokenize=False"),
        ("tokenizer_mode", "slow", "'auto'"),
        ("load_format", "dummy", "safetensors"),
        ("hf_overrides", {"rope_theta": 1}, "config.json"),
        ("enable_lora", True, "merge the adapter"),
        ("runner", "pooling", "'generate'"),
    ],
)
def test_what_would_change_an_answer_is_refused_by_name(name: str, value: Any, instead: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        resolve("m", **{name: value})
    assert str(refusal.value).startswith(f"LLM cannot do {name} = {value!r}: ")
    assert instead in str(refusal.value)


def test_vllms_names_of_what_is_ours() -> None:
    assert resolve("m", kv_cache_memory_bytes="1MiB").kv_cache_memory == 2**20
    with pytest.raises(ConfigError, match="kv_cache_memory_bytes and kv_cache_memory, which mean the same"):
        resolve("m", kv_cache_memory_bytes=1, kv_cache_memory=2)
    older = {"ngram_prompt_lookup_min": 1, "ngram_prompt_lookup_max": 3}
    newer = {"prompt_lookup_min": 1, "prompt_lookup_max": 3}
    assert resolve("m", speculative_model="[ngram]", **older) == resolve(
        "m", speculative_config={"method": "ngram", **newer}
    )


@pytest.mark.parametrize(
    ("given", "meant"), [("half", "float16"), ("float", "float32"), (torch.bfloat16, "bfloat16")]
)
def test_vllms_names_of_dtypes(given: Any, meant: str) -> None:
    assert resolve("m", dtype=given).dtype == meant


def test_a_scheme_of_stored_weights_is_looked_for() -> None:
    config = resolve("m", quantization="awq_marlin")
    assert (config.quantization, config.stored_quantization) == (None, "awq")
    with pytest.raises(ConfigError, match=r"^quantization = 'bitsandbytes': "):
        resolve("m", quantization="bitsandbytes")


def test_vllms_speculative_config() -> None:
    mapping = {"method": "eagle3", "model": "head", "num_speculative_tokens": 3}
    idle = {"draft_tensor_parallel_size": 1, "disable_by_batch_size": 4, "max_model_len": 2048}
    with pytest.warns(UserWarning, match="draft_tensor_parallel_size, disable_by_batch_size, max_model_len"):
        config = resolve("m", speculative_config={**mapping, **idle, "spec_token_tree": None})
    assert config == resolve("m", speculative_config=mapping)
    with pytest.raises(
        ConfigError, match=r"speculative_config cannot do posterior_threshold = 0.1: .*lossless"
    ):
        resolve("m", speculative_config={**mapping, "posterior_threshold": 0.1})


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * 2**20),
        ("512mib", 512 * 2**20),
        (" 2 GB ", 2 * 10**9),
        ("1.5KiB", 1536),
        ("1000", 1000),
        ("7B", 7),
        ("3KB", 3000),
        ("0.5GiB", 2**29),
    ],
)
def test_bytes_as_text(text: str, size: int) -> None:
    assert resolve("m", kv_cache_memory=text).kv_cache_memory == size


@given(st.integers(1, 4096), st.sampled_from(sorted(UNITS)))
def test_every_unit(number: int, unit: str) -> None:
    assert parse_bytes(f"{number}{unit}") == parse_bytes(f"{number} {unit.lower()}") == number * UNITS[unit]


@given(st.integers(2**53, 2**62))
def test_bytes_in_full_are_exact(number: int) -> None:
    assert resolve("m", kv_cache_memory=number).kv_cache_memory == number


def test_bytes_in_full_are_exact_as_text() -> None:
    assert parse_bytes(str(2**53 + 1)) == 2**53 + 1


def test_key_that_is_no_string_is_refused() -> None:
    with pytest.raises(ConfigError, match="speculative_config has no argument 1"):
        resolve("m", speculative_config={1: 2})


def test_absurd_bytes_are_refused() -> None:
    with pytest.raises(ConfigError, match="kv_cache_memory"):
        resolve("m", kv_cache_memory="9" * 400)


def test_ngram_is_another_name_of_suffix() -> None:
    for name in ("ngram", "[ngram]"):
        assert resolve("m", speculative_model=name) == resolve("m", speculative_model="suffix")
    for method in ("ngram", "suffix"):
        config = resolve("m", speculative_config={"method": method}).speculative
        assert config is not None
        assert config.drafters[0].name == "suffix"


def test_a_file_of_shared_texts_needs_texts_that_are_shared() -> None:
    with pytest.raises(ConfigError, match=r"^suffix_file = 'texts' with suffix_memory = 0: .*; drop one$"):
        resolve("m", speculative_model="suffix", suffix_memory=0, suffix_file="texts")
