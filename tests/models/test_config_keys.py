"""Every key of config.json is used, harmless, or refused; and every value is checked before it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.config import model_config
from outrider.models.families.family import Family
from outrider.models.registry import FAMILIES, config_settings
from outrider.ops.shapes import Rope
from tests.models.public_configs import PUBLIC, SCALED, WINDOWED


def edit(folder: Path, changes: dict[str, Any], file: str = "config.json") -> None:
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | changes))


def rope_of(folder: Path) -> Rope:
    rope = open_checkpoint(str(folder)).config.tree.attention_shapes[0].rope
    assert rope is not None
    return rope


def refusal(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(folder))
    text = str(caught.value)
    assert str(folder) in text
    assert "\n" not in text
    assert len(text) < 400
    return text


@pytest.mark.parametrize("name", PUBLIC)
def test_public_configurations_are_read_without_noise(name: str, caplog: pytest.LogCaptureFixture) -> None:
    raw = PUBLIC[name]
    config = model_config(*config_settings(raw, name, None))
    assert not caplog.messages
    sizes = raw.get("text_config", raw)
    eos = raw.get("eos_token_id", sizes.get("eos_token_id"))
    assert config.eos_token_ids == tuple(sorted(eos if isinstance(eos, list) else [eos]))
    assert (config.hidden_size, config.num_layers) == (sizes["hidden_size"], sizes["num_hidden_layers"])
    assert config.tree.norm.eps == sizes.get("rms_norm_eps", sizes.get("norm_eps", 1e-6))
    shapes = config.tree.attention_shapes
    assert {shape.kv_heads for shape in shapes} == {sizes.get("num_key_value_heads", 4)}
    assert shapes[0].window == (sizes["sliding_window"] if name in WINDOWED else None)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": None},
        {"architectures": []},
        {"model_type": None},
        {"clip_qkv": None, "qk_norm": False, "logits_scaling": 1.0, "num_experts": 0, "vision_config": {}},
        {"use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 28},
        {"layer_types": ["full_attention"], "no_rope_layers": [1]},
        {"rope_parameters": {"rope_type": "default", "rope_theta": None}},
        {"num_labels": 2**31, "id2label": {str(i): "x" for i in range(3)}},
        {"pretraining_tp": 2, "attention_dropout": 0.1, "quantization_config": {}},
    ],
    ids=str,
)
def test_what_changes_nothing(
    folder: Path, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    edit(folder, changes)
    config = open_checkpoint(str(folder)).config
    assert config.architecture == "LlamaForCausalLM"
    assert {shape.window for shape in config.tree.attention_shapes} == {None}
    assert not caplog.messages


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attention_multiplier", 0.0078125),
        ("logits_scaling", 8.0),
        ("residual_multiplier", 0.22),
        ("embedding_multiplier", 12.0),
        ("final_logit_softcapping", 30.0),
        ("attn_logit_softcapping", 50.0),
        ("partial_rotary_factor", 0.5),
        ("attn_temperature_tuning", True),
        ("clip_qkv", 8.0),
        ("qk_norm", True),
        ("use_qk_norm", True),
        ("rope_interleaved", True),
        ("no_rope_layers", [1, 1, 1, 0]),
        ("layer_types", ["sliding_attention"]),
        ("sliding_window", 4096),
        ("num_local_experts", 8),
        ("per_layer_config", {"0": {"sliding_window": 4}}),
        ("is_causal", False),
        ("alibi", True),
        ("text_config", {"hidden_size": 3}),
        ("position_embedding_type", "absolute"),
    ],
)
def test_keys_that_would_change_an_answer_are_refused(folder: Path, key: str, value: Any) -> None:
    edit(folder, {key: value})
    assert f"{key} = " in refusal(folder)


@pytest.mark.parametrize("tokens", ["tokenizer.json", "tokenizer.model"])
def test_labels_are_not_counted(folder: Path, tokens: str) -> None:
    """transformers makes a name for each of them, in the tokenizer's configuration too."""
    edit(folder, {"num_labels": 2**31})
    (folder / "tokenizer.json").rename(folder / tokens)
    checkpoint = open_checkpoint(str(folder))
    if tokens == "tokenizer.json":
        checkpoint.tokenizer()
    else:
        with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
            checkpoint.tokenizer()


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_type_of_the_weights(folder: Path, key: str) -> None:
    """What `dtype="auto"` means on a GPU."""
    edit(folder, {"dtype": None} | {key: "bfloat16"})
    assert open_checkpoint(str(folder)).config.dtype == "bfloat16"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_every_key_that_transformers_writes_is_known(family: Family) -> None:
    raw = CONFIG_MAPPING[family.model_type](architectures=[family.architecture]).to_dict()
    model_config(*config_settings(raw, family.name, None))


@pytest.mark.parametrize("value", [True, 0, 1, 0.0, 1.0, "eager", [0], {"a": None}, 2.5])
def test_a_key_that_nobody_knows_is_refused(folder: Path, value: Any) -> None:
    edit(folder, {"norm_of_tomorrow": value})
    said = refusal(folder)
    assert f"config.json has 'norm_of_tomorrow' = {value!r}, which is not known and may change" in said
    assert "remove it from the file if it is only a note" in said


@pytest.mark.parametrize("value", [None, False, "", [], {}])
def test_a_key_that_nobody_knows_may_be_off(folder: Path, value: Any) -> None:
    edit(folder, {"norm_of_tomorrow": value})
    open_checkpoint(str(folder))


def test_unknown_keys_are_named_together(folder: Path) -> None:
    edit(folder, {f"note_{i}": i for i in range(9)})
    assert "'note_0' = 0, 'note_1' = 1, 'note_2' = 2 and 6 more, which is not known" in refusal(folder)


@pytest.mark.parametrize("key", ["unsloth_tomorrow", "head_dropout", "router_z_loss_coef", "auto_map"])
def test_notes_and_what_only_training_has(folder: Path, key: str) -> None:
    plain = open_checkpoint(str(folder)).config
    edit(folder, {key: 0.5})
    assert open_checkpoint(str(folder)).config == plain


def test_windows_by_two_names_have_to_agree() -> None:
    raw = PUBLIC["gemma-2-9b-it"]
    with pytest.raises(
        ModelError, match="sliding_window_size = 128; it has to be the same as sliding_window"
    ):
        model_config(*config_settings(raw | {"sliding_window_size": 128}, "x", None))


def test_norms_that_an_architecture_always_has() -> None:
    raw = PUBLIC["Qwen3-Coder-30B-A3B-Instruct"]
    with pytest.raises(ModelError, match="use_qk_norm = False; it has to be True, as all models of this"):
        model_config(*config_settings(raw | {"use_qk_norm": False}, "x", None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"norm_of_tomorrow": 2}, "'norm_of_tomorrow' = 2, which is not known"),
        ({"final_logit_softcapping": 30.0}, "final_logit_softcapping = 30.0 is not supported"),
        ({"hidden_size": 2048}, "'hidden_size' = 2048"),
        ({"hidden_size": 2560}, None),
    ],
    ids=str,
)
def test_keys_beside_those_of_the_text(changes: dict[str, Any], said: str | None) -> None:
    """What a model that reads images says of itself is not passed over either."""
    settings = PUBLIC["gemma-3-4b-it"] | changes
    if said is None:
        config_settings(settings, "x", None)
    else:
        with pytest.raises(ModelError, match=said):
            config_settings(settings, "x", None)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 2**31}, "num_hidden_layers = 2147483648; it has to be at least 1 and at most"),
        ({"num_hidden_layers": 4000}, "'model.layers.1.self_attn.q_proj.weight' is missing"),
        ({"head_dim": 2**30}, "head_dim"),
        ({"head_dim": 4096}, "config.json implies"),
        ({"vocab_size": 2**31}, "vocab_size"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"hidden_size": True}, "hidden_size = True"),
        ({"hidden_size": 16.0}, "hidden_size = 16.0"),
        ({"intermediate_size": "16"}, "intermediate_size = '16'"),
        ({"max_position_embeddings": 2**31}, "max_position_embeddings"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps = -1e-05"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps = '1e-5'"),
        ({"rms_norm_eps": 10**400}, "rms_norm_eps"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings = 'false'; it has to be true or false"),
        ({"attention_bias": None}, "attention_bias = None"),
        ({"torch_dtype": "float8_e4m3fn"}, "torch_dtype = 'float8_e4m3fn'; it has to be one of float32"),
        ({"dtype": ["float32"]}, "dtype = ['float32']"),
        ({"hidden_act": ["silu"]}, "activation ['silu']"),
        ({"sliding_window": "4"}, "sliding_window = '4'"),
        ({"rope_scaling": [1]}, "rope_scaling = [1]; it has to be an object"),
        ({"rope_parameters": None, "rope_theta": "1e4"}, "rope_theta = '1e4'"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta = 0"),
        ({"rope_parameters": {"rope_theta": 10**400}}, "rope_theta"),
        ({"rope_parameters": {"rope_type": []}}, "rope scaling [] is not supported"),
        ({"rope_parameters": {"factor": 4.0}}, "rope scaling 'default' does not use 'factor' = 4.0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "2"}}, "factor = '2'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": float("nan")}}, "factor = nan"),
        ({"rope_parameters": {"rope_type": "linear"}}, "factor"),
        ({"rope_parameters": {"rope_type": "linear", "type": "yarn", "factor": 2}}, "give one"),
        ({"rope_parameters": SCALED | {"high_freq_factor": 1.0}}, "greater than low_freq_factor"),
        ({"rope_parameters": {"mrope_section": [1], "rope_type": "default"}}, "mrope_section"),
        ({"rope_theta": 5e5}, "rope_theta = 500000.0, and 10000.0 in the rope's"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_scaling and rope_parameters differ"),
        ({"architectures": None, "model_type": None}, "has no 'architectures'"),
        ({"architectures": None, "model_type": []}, "model_type []"),
        ({"model_type": "mistral"}, "architecture 'LlamaForCausalLM' and model_type 'mistral'"),
        ({"eos_token_id": "2"}, "eos_token_id = '2'"),
        ({"eos_token_id": [[2]]}, "eos_token_id = [[2]]"),
        ({"eos_token_id": True}, "eos_token_id = True"),
        ({"eos_token_id": [2, -1]}, "eos_token_id = [2, -1]"),
        ({"eos_token_id": 10**6}, "eos_token_id = 1000000; token ids are whole numbers from 0 to"),
    ],
    ids=str,
)
def test_values_that_no_model_has(folder: Path, changes: dict[str, Any], said: str) -> None:
    edit(folder, changes)
    assert said in refusal(folder)


def test_a_base_beyond_what_pytorch_takes_as_an_integer(folder: Path) -> None:
    edit(folder, {"rope_parameters": {"rope_theta": 2**70}})
    frequencies = rope_of(folder).inv_freq
    assert frequencies[1] == pytest.approx(2 ** (-70 / len(frequencies)))


def test_yarn_that_cannot_be_computed(folder: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1, "original_max_position_embeddings": 64}
    edit(folder, {"rope_parameters": yarn})
    assert "fails: " in refusal(folder)


def test_other_stop_tokens_out_of_range_name_their_file(folder: Path) -> None:
    edit(folder, {"eos_token_id": [2, 10**6]}, "generation_config.json")
    assert "eos_token_id of generation_config.json = [2, 1000000]" in refusal(folder)


def test_a_missing_stop_token_is_not_that_of_llama_2(folder: Path) -> None:
    """transformers would add token 2, whatever it is in this vocabulary."""
    for file in ("config.json", "generation_config.json"):
        raw = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({key: raw[key] for key in raw if key != "eos_token_id"}))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    assert open_checkpoint(str(folder)).config.eos_token_ids == ()


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json"])
def test_json_that_is_nested_too_deep(folder: Path, name: str) -> None:
    (folder / name).write_text('{"a": ' + "[" * 10**5 + "]" * 10**5 + "}")
    assert f"{name} is not valid JSON" in refusal(folder)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "model.safetensors.index.json"])
def test_a_folder_in_place_of_a_file(folder: Path, name: str) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    assert f"{name} is not a file" in refusal(folder)


def test_a_file_that_may_not_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "config.json cannot be read: Permission denied" in refusal(folder)
