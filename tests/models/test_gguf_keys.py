"""Keys and tensors of a GGUF file are applied, or refused by name."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf.constants import Keys

from outrider import LLM
from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.gguf_keys import HARMLESS, NEUTRAL
from outrider.ops.shapes import Rope
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf

SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
NOT_NEUTRAL = 0.625  # of no key that a number would be right for


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return write_hf(tmp_path_factory.mktemp("hf"), tiny_config(**SMALL))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "m.gguf"


def rope_of(file: Path) -> Rope:
    rope = open_checkpoint(str(file)).config.tree.attention_shapes[0].rope
    assert rope is not None
    return rope


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(file))
    said = str(caught.value)
    assert str(file) in said
    assert said.splitlines() == [said]
    assert len(said) < 600
    return said


def known_keys() -> list[str]:
    """Every key of an architecture that the gguf library names."""
    groups = [group for group in vars(Keys).values() if isinstance(group, type)]
    keys = [value for group in groups for value in vars(group).values() if isinstance(value, str)]
    names = {key.removeprefix("{arch}.").format(dense="dense_1") for key in keys if key.startswith("{arch}.")}
    return sorted(names)


@pytest.mark.parametrize("name", sorted({*known_keys(), *NEUTRAL, "new_in_the_next_version"}))
def test_every_key_is_applied_or_refused(file: Path, model: Any, name: str) -> None:
    write_gguf(file, model, None, metadata={f"llama.{name}": NOT_NEUTRAL})
    if name in HARMLESS:
        open_checkpoint(str(file))
    elif name == "rope.freq_base":
        assert "has to be greater than 1" in refusal(file)
    elif name == "attention.layer_norm_rms_epsilon":
        assert open_checkpoint(str(file)).config.tree.norm.eps == NOT_NEUTRAL
    elif name in ("rope.scaling.factor", "rope.scale_linear"):
        assert rope_of(file).inv_freq[0] == pytest.approx(1 / NOT_NEUTRAL)
    elif name == "rope.scaling.original_context_length":
        open_checkpoint(str(file))  # only YaRN asks for it
    else:
        assert f"llama.{name} = 0.625" in refusal(file)


@pytest.mark.parametrize("name", sorted({*NEUTRAL} - {"attention.sliding_window"}))
def test_the_value_that_changes_nothing_is_taken(file: Path, model: Any, name: str) -> None:
    plain = write_gguf(file, model, None)
    assert plain
    before = open_checkpoint(str(file)).config
    file.unlink()
    write_gguf(file, model, None, metadata={f"llama.{name}": NEUTRAL[name]})
    assert open_checkpoint(str(file)).config == before


def test_a_setting_that_nobody_knows_may_be_off(file: Path, model: Any) -> None:
    write_gguf(file, model, None, metadata={"llama.norm_of_tomorrow": False})
    open_checkpoint(str(file))
    for value in (True, 0, 1.0, "eager"):
        file.unlink()
        write_gguf(file, model, None, metadata={"llama.norm_of_tomorrow": value})
        assert f"norm_of_tomorrow = {value!r}; this setting is not known, and may change" in refusal(file)


def test_no_key_stands_in_two_lists() -> None:
    assert not NEUTRAL.keys() & HARMLESS


def test_the_scale_of_attention(file: Path, model: Any) -> None:
    write_gguf(file, model, None, metadata={"llama.attention.scale": 0.5})
    open_checkpoint(str(file))  # of heads of 4 dimensions
    file.unlink()
    write_gguf(file, model, None, metadata={"llama.attention.scale": 0.25})
    assert "llama.attention.scale = 0.25; it is not supported; it has to be 0.5" in refusal(file)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"llama.expert_count": 8}, "num_experts_per_tok is missing"),  # of a Mixtral
        (
            {"split.count": 3, "split.no": 1},
            "is one of 3 parts of a model (split.count); the names of the parts have to end in",
        ),
        ({"general.type": "adapter"}, "general.type = 'adapter'; the file is not a model by itself"),
        ({"general.quantization_version": 1}, "general.quantization_version = 1; it has to be 2"),
        ({"llama.attention.sliding_window": 64}, "llama.attention.sliding_window = 64"),
        ({"llama.attention.causal": False}, "llama.attention.causal = False"),
        ({"llama.attention.value_length": 8}, "attention.value_length = 8 of head_dim = 4"),
        ({"llama.attention.head_count": [4, 4]}, "head_count = [4, 4]; it has to be a whole number for all"),
        ({"llama.attention.head_count_kv": True}, "head_count_kv = True; it has to be a whole number"),
        ({"llama.feed_forward_length": [16]}, "feed_forward_length = [16]; it has to be a whole number for"),
        ({"llama.vocab_size": 5}, "llama.vocab_size = 5; tensor 'token_embd.weight' has"),
        ({"llama.embedding_length": 32}, "llama.embedding_length = 32; tensor 'token_embd.weight' has 16"),
        ({"llama.block_count": 2**31 - 1}, "llama.block_count = 2147483647; the file has tensors of 1"),
        ({"llama.block_count": 2}, "llama.block_count = 2; the file has tensors of 1 layers"),
        ({"llama.attention.key_length": 2**31 - 2}, "of 2147483646 dimensions each, does not fit tensor"),
        ({"llama.attention.head_count": 2**31 - 1}, "llama.attention.head_count = 2147483647"),
        ({"llama.attention.head_count": 2**31}, "it has to be at least 0 and less than 2147483648"),
        (
            {"llama.feed_forward_length": 2**19},
            "'blk.0.ffn_gate.weight' has shape (16, 16); the metadata implies",
        ),
        ({"llama.feed_forward_length": 2**30}, "intermediate_size = 1073741824; it has to be at least 1"),
        ({"llama.context_length": 0}, "max_position_embeddings = 0"),
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "layer_norm_rms_epsilon = nan"),
        ({"llama.attention.layer_norm_rms_epsilon": -1e-5}, "has to be a finite number greater than 0"),
        ({"llama.attention.layer_norm_rms_epsilon": "small"}, "epsilon = 'small'; it has to be a number"),
        ({"llama.rope.freq_base": float("inf")}, "llama.rope.freq_base = inf; it has to be a finite number"),
        ({"llama.rope.freq_base": 0.0}, "llama.rope.freq_base = 0.0"),
        ({"llama.rope.scaling.type": "llama3"}, "type = 'llama3'; supported are 'none', 'linear' and 'yarn'"),
        ({"llama.rope.scaling.factor": 0.0}, "llama.rope.scaling.factor = 0.0; it has to be a finite number"),
        ({"llama.rope.scale_linear": -2.0}, "llama.rope.scale_linear = -2.0; it has to be a finite number"),
    ],
)
def test_what_is_refused_and_why(file: Path, model: Any, metadata: dict[str, Any], said: str) -> None:
    write_gguf(file, model, None, metadata=metadata)
    assert said in refusal(file)


@pytest.mark.parametrize(
    ("metadata", "factor"),
    [
        ({"scale_linear": 4.0}, 4.0),
        ({"scaling.factor": 4.0}, 4.0),
        ({"scaling.factor": 2.0, "scale_linear": 4.0}, 2.0),
        ({"scaling.type": "linear", "scale_linear": 4.0}, 4.0),
        ({"scaling.type": "none", "scaling.factor": 4.0}, 1.0),
        ({"scaling.factor": 4.0, "scaling.finetuned": True}, 4.0),
    ],
)
def test_linear_scaling_as_llama_cpp_reads_it(
    file: Path, model: Any, metadata: dict[str, Any], factor: float
) -> None:
    write_gguf(file, model, None)
    plain = rope_of(file).inv_freq
    file.unlink()
    write_gguf(file, model, None, metadata={f"llama.rope.{key}": value for key, value in metadata.items()})
    assert rope_of(file).inv_freq == pytest.approx([f / factor for f in plain])


def test_yarn_was_trained_at_the_context_length_unless_it_says_otherwise(file: Path, model: Any) -> None:
    yarn = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0}
    ropes = []
    for more in ({}, {"llama.rope.scaling.original_context_length": model.config.max_position_embeddings}):
        file.unlink(missing_ok=True)
        write_gguf(file, model, None, metadata=yarn | more)
        ropes.append(rope_of(file))
    assert ropes[0] == ropes[1]
    assert ropes[0].factor > 1


@pytest.mark.parametrize(
    "name",
    [
        "blk.0.attn_k.bias",
        "blk.0.attn_q_norm.weight",
        "blk.0.attn_q.scale",
        "blk.0.attn_sinks",
        "blk.0.ffn_gate_exps.weight",
        "blk.1.attn_q.weight",
        "position_embd.weight",
        "rope_factors_mid.weight",
        "rope_freqs.weight.scale",
    ],
)
def test_a_tensor_without_a_use_is_named(file: Path, model: Any, name: str) -> None:
    write_gguf(file, model, None, tensors={name: np.ones(8, np.float32)})
    assert f"1 layers has no use for: '{name}'" in refusal(file)


def test_many_tensors_without_a_use_are_counted(file: Path, model: Any) -> None:
    tensors = {f"blk.{n}.attn_sinks": np.ones(8, np.float32) for n in range(10)}
    write_gguf(file, model, None, tensors=dict(tensors))
    assert "'blk.3.attn_sinks' and 6 more" in refusal(file)


def test_biases_are_all_there(file: Path, tmp_path: Path) -> None:
    model = write_hf(tmp_path / "hf", tiny_config(**SMALL, attention_bias=True))
    write_gguf(file, model, None, tensors={"blk.0.attn_output.bias": None})
    assert "tensor 'blk.0.attn_output.bias' ('model.layers.0.self_attn.o_proj.bias') is missing" in refusal(
        file
    )


def test_divisors_for_long_texts_are_complete_and_have_no_other_scaling(file: Path, model: Any) -> None:
    long, short = "rope_factors_long.weight", "rope_factors_short.weight"
    tensors = {name: np.array([2, 3], np.float32) for name in (long, short)}
    write_gguf(file, model, None, tensors=dict(tensors))
    assert rope_of(file).inv_freq[0] == 1 / 2
    for left_out in tensors:
        write_gguf(file, model, None, tensors=tensors | {left_out: None})
        assert f"tensor '{left_out}' is missing" in refusal(file)
    kind = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    write_gguf(file, model, None, tensors=dict(tensors), metadata=kind)
    assert "type = 'linear'; the file has the divisors of 'longrope'" in refusal(file)
    write_gguf(file, model, None, tensors=tensors | {"rope_freqs.weight": np.ones(2, np.float32)})
    assert f"has no use for: '{long}', '{short}'" in refusal(file)


@pytest.mark.parametrize("bad", [0.0, -1.0, 1e-42, float("nan"), float("inf")])
def test_divisors_of_frequencies_are_positive(file: Path, model: Any, bad: float) -> None:
    write_gguf(file, model, None, tensors={"rope_freqs.weight": np.array([1, bad], np.float32)})
    assert "'rope_freqs.weight' holds numbers that are not finite and greater than 0" in refusal(file)


def test_more_tokens_than_rows_of_the_embedding(file: Path, model: Any) -> None:
    write_gguf(file, model, tiny_tokenizer(extra=("<tool>",)))
    assert f"tokens has {len(tiny_tokenizer()) + 1} tokens; tensor 'token_embd.weight' has" in refusal(file)


def test_defaults_of_sampling_are_not_passed_over_silently(
    file: Path, model: Any, caplog: pytest.LogCaptureFixture
) -> None:
    write_gguf(file, model, tiny_tokenizer(), metadata={"general.sampling.mirostat": 2.0})
    with caplog.at_level(logging.WARNING):
        LLM(str(file), device="cpu", kv_cache_memory=2**22)
    assert "are not applied: mirostat = 2.0" in caplog.text
