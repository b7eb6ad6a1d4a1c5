"""Settings as older files and those of transformers 5 spell them are the same; others are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from outrider.errors import ModelError
from outrider.models import families
from outrider.models.config import model_config
from outrider.models.families.family import Family
from outrider.models.gguf_metadata import Metadata
from outrider.models.parts import Decoder
from outrider.models.registry import FAMILIES as REGISTRY
from outrider.models.registry import config_settings, family_of_gguf
from tests.models.families.table import (
    BY_TYPE,
    DELTA_ROPE,
    FAMILIES,
    LOCAL,
    OLMO_3_ROPE,
    WIDE,
    WINDOW,
    long_rope,
)


def saved(name: str, **changes: Any) -> dict[str, Any]:
    """config.json of a tiny model, as transformers saves it; None leaves a key out."""
    raw = FAMILIES[name].config().to_dict() | changes
    return {key: value for key, value in raw.items() if value is not None}


def built(raw: Mapping[str, Any]) -> Decoder:
    return model_config(*config_settings(raw, "x", None)).tree


def of_gguf(architecture: str, values: Mapping[str, Any] | None = None) -> Family:
    return family_of_gguf(Metadata({"general.architecture": architecture, **(values or {})}, "x"))


def refusal(raw: Mapping[str, Any]) -> str:
    with pytest.raises(ModelError) as caught:
        built(raw)
    return str(caught.value)


LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {key: value for key, value in OLMO_3_ROPE[WIDE].items() if key != "rope_theta"}
PHI_3 = {key: value for key, value in long_rope(6).items() if key != "rope_theta"}
OLD_PHI_3 = {"type": "su", **{key: value for key, value in PHI_3.items() if key != "rope_type"}}
PICTURES: dict[str, Any] = DELTA_ROPE | {"mrope_interleaved": True, "mrope_section": [3, 3, 2]}
SPELLINGS: list[tuple[str, dict[str, Any]]] = [
    (
        "gemma3",
        {
            "rope_parameters": None,
            "rope_theta": BY_TYPE[WIDE]["rope_theta"],
            "rope_local_base_freq": BY_TYPE[LOCAL]["rope_theta"],
            "rope_scaling": LINEAR,
        },
    ),
    ("gemma3", {"layer_types": None}),
    ("gemma3", {"layer_types": None, "sliding_window_pattern": 6}),
    ("gemma3", {"hidden_act": "gelu_pytorch_tanh", "cache_implementation": "hybrid"}),
    ("gemma2", {"layer_types": None, "hidden_act": "gelu_pytorch_tanh"}),
    ("gemma2", {"rope_parameters": None, "rope_theta": 10000.0}),
    ("olmo3", {"rope_parameters": None, "rope_theta": 5000.0, "rope_scaling": YARN, "layer_types": None}),
    ("smollm3", {"no_rope_layers": None}),
    ("smollm3", {"no_rope_layers": [1, 1, 1, 0, 1], "no_rope_layer_interval": None, "layer_types": None}),
    ("smollm3-window", {"layer_types": None}),
    (
        "phi3-long",
        {
            "rope_parameters": None,
            "rope_theta": 10000.0,
            "rope_scaling": OLD_PHI_3,
        },
    ),
    (
        "phi4-mini",
        {
            "rope_parameters": None,
            "rope_theta": 10000.0,
            "rope_scaling": PHI_3,
            "partial_rotary_factor": 0.75,
            "attention_bias": False,
            "mlp_bias": False,
            "lm_head_bias": False,
            "full_attn_mod": 1,
            "interpolate_factor": 1,
        },
    ),
    ("glm4", {"rope_parameters": None, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
    ("glm", {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    ("qwen2-window", {"layer_types": None}),
    ("ministral", {"layer_types": [LOCAL, WIDE]}),
    ("granite", {"position_embedding_type": "rope", "num_local_experts": 0}),
    ("granite-moe", {"shared_intermediate_size": 0}),
    ("qwen2-moe", {"sliding_window": 32768}),
    ("qwen2-moe-window", {"layer_types": None}),
    ("qwen3-next", {"layer_types": None}),
    ("qwen3-next", {"layer_types": None, "full_attention_interval": 4}),
    ("qwen3-next", {"rope_parameters": None, "rope_theta": 10000.0, "partial_rotary_factor": 0.5}),
    ("qwen3.5", {"attn_output_gate": True, "output_gate_type": "swish", "mtp_num_hidden_layers": 1}),
    ("qwen3.5", {"rope_parameters": PICTURES}),
    ("lfm2", {"layer_types": None, "full_attn_idxs": [1]}),
    ("lfm2", {"intermediate_size": None, "block_ff_dim": 96, "hidden_act": "silu"}),
    ("lfm2", {"block_auto_adjust_ff_dim": False, "block_ff_dim": 96}),
    ("lfm2", {"tie_word_embeddings": None, "tie_embedding": True}),
    ("lfm2-bias", {"tie_word_embeddings": None, "tie_embedding": False}),
]


@pytest.mark.parametrize(("name", "changes"), SPELLINGS, ids=str)
def test_older_and_newer_settings(
    name: str, changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    expected = built(saved(name))
    assert built(saved(name, **changes)) == expected
    assert not [record for record in caplog.records if record.name.startswith("outrider")]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        (
            "gemma2",
            {"use_bidirectional_attention": True},
            "use_bidirectional_attention = True is not supported",
        ),
        ("gemma2", {"hidden_activation": "silu"}, "activation 'silu' is not supported"),
        ("gemma2", {"hidden_act": "gelu"}, "activation 'gelu' is not supported"),
        ("gemma2", {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar = 0"),
        ("gemma2", {"final_logit_softcapping": -1.0}, "final_logit_softcapping = -1.0"),
        ("gemma2", {"layer_types": [LOCAL] * 3}, "layer_types"),
        ("gemma2", {"layer_types": ["chunked_attention"] * 4}, "layer_types"),
        ("gemma3", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping = 50.0 is not supported"),
        ("gemma3", {"rope_parameters": BY_TYPE | {LOCAL: {"rope_type": "ntk"}}}, "'ntk' is not supported"),
        ("gemma3", {"rope_local_base_freq": "1e4"}, "rope_local_base_freq = '1e4'"),
        ("gemma3", {"sliding_window_pattern": 0}, "sliding_window_pattern = 0"),
        ("olmo2", {"sliding_window": WINDOW}, f"sliding_window = {WINDOW}"),
        ("olmo2", {"clip_qkv": 8.0}, "clip_qkv = 8.0 is not supported"),
        ("phi3", {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 1.5}}, "at most 1"),
        ("phi3", {"rope_parameters": long_rope(5)}, "a list has 5 values; 12 dimensions turn"),
        ("phi3", {"rope_parameters": long_rope(6, short_factor=[0] * 6)}, "short_factor"),
        ("phi3", {"attention_bias": True}, "attention_bias = True is not supported"),
        ("phi3", {"full_attn_mod": 2}, "full_attn_mod = 2 is not supported"),
        (
            "smollm3",
            {"no_rope_layers": [1, 1]},
            "no_rope_layers = [1, 1]; it has to be a list of 0 and 1 for 5",
        ),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 2, 1]}, "no_rope_layers"),
        ("smollm3", {"no_rope_layer_interval": 0}, "no_rope_layer_interval = 0"),
        ("granite", {"residual_multiplier": 0}, "residual_multiplier = 0"),
        ("granite", {"logit_scale": 0.5}, "logit_scale = 0.5 is not supported"),
        ("granite", {"num_local_experts": 8}, "num_local_experts = 8 is not supported"),
        ("granite", {"position_embedding_type": "nope"}, "position_embedding_type = 'nope' is not supported"),
        ("glm4", {"partial_rotary_factor": 0.2, "rope_parameters": None}, "3 of 16 dimensions turn"),
        ("qwen3-next", {"linear_num_value_heads": 5}, "linear_num_value_heads = 5; it has to be a multiple"),
        ("qwen3-next", {"layer_types": ["mamba"] * 5}, "layer_types"),
        ("qwen3-next", {"full_attention_interval": 0, "layer_types": None}, "full_attention_interval = 0"),
        ("qwen3.5", {"attn_output_gate": False}, "attn_output_gate = False is not supported"),
        ("qwen3.5", {"output_gate_type": "sigmoid"}, "output_gate_type = 'sigmoid' is not supported"),
        ("qwen3", {"rope_parameters": PICTURES}, "mrope"),
        ("lfm2", {"block_use_swiglu": False}, "block_use_swiglu = False is not supported"),
        ("lfm2", {"full_attn_idxs": [4], "layer_types": None}, "full_attn_idxs = [4]"),
        ("lfm2", {"conv_L_cache": 0}, "conv_L_cache = 0"),
        ("mistral", {"attn_temperature_tuning": True}, "attn_temperature_tuning = True is not supported"),
        (
            "qwen3",
            {"rope_parameters": FAMILIES["ministral3"].config().rope_parameters},
            "llama_4_scaling_beta",
        ),
    ],
    ids=str,
)
def test_what_is_not_computed(name: str, changes: dict[str, Any], said: str) -> None:
    assert said in refusal(saved(name) | changes)


def test_settings_that_files_leave_out() -> None:
    """As those of Gemma 3 with images do: they are transformers' own."""
    shapes = built(
        {
            "architectures": ["Gemma3ForConditionalGeneration"],
            "model_type": "gemma3",
            "text_config": {
                "hidden_size": 2560,
                "intermediate_size": 10240,
                "model_type": "gemma3_text",
                "num_hidden_layers": 34,
                "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
                "sliding_window": 1024,
            },
            "vision_config": {},
        }
    ).attention_shapes
    of_4b = shapes[5]
    assert (of_4b.heads, of_4b.kv_heads, of_4b.head_dim, of_4b.scale) == (8, 4, 256, 1 / 16)
    assert [shape.window for shape in shapes[:6]] == [1024] * 5 + [None]
    assert shapes[0].rope is not None
    assert of_4b.rope is not None
    assert (shapes[0].rope.inv_freq[0], of_4b.rope.inv_freq[0]) == (1.0, 0.125)


def test_scores_grow_where_requests_reach_that_far() -> None:
    raw = saved("ministral3")
    for positions, grows in ((None, True), (33, True), (32, False)):
        tree = model_config(*config_settings(raw, "x", positions)).tree
        assert (tree.attention_shapes[0].temperature is not None) == grows
    for bad in (0, -1.0, "0.1", True):
        rope = raw["rope_parameters"] | {"llama_4_scaling_beta": bad}
        assert f"scores that grow by {bad!r}" in refusal(raw | {"rope_parameters": rope})


def test_every_family_is_among_the_tiny_models() -> None:
    made = {tuple(tiny.config().architectures) for tiny in FAMILIES.values()}
    assert made == {(family.architecture,) for family in REGISTRY}
    in_gguf = {tiny.gguf for tiny in FAMILIES.values() if tiny.gguf is not None}
    assert in_gguf == {family.gguf for family in REGISTRY} - {None}
    for name in in_gguf:
        assert of_gguf(name).gguf == name
    assert of_gguf("llama", {"llama.expert_count": 0}).architecture == "LlamaForCausalLM"
    assert of_gguf("llama", {"llama.expert_count": 8}).architecture == "MixtralForCausalLM"


def test_a_family_is_a_page() -> None:
    """It has 60 lines at most, and is named once for each of its names."""
    for file in Path(str(families.__file__)).parent.glob("*.py"):
        if file.name not in ("build.py", "family.py", "mixture.py"):
            assert len(file.read_text().splitlines()) <= 60, file.name
    for names in ([family.architecture for family in REGISTRY], [family.model_type for family in REGISTRY]):
        assert len({*names}) == len(names)


@pytest.mark.parametrize("family", REGISTRY, ids=lambda family: family.architecture)
def test_the_model_type_will_do(family: Any) -> None:
    """Where `architectures` is missing; and both have to belong together."""
    name = next(
        name for name, tiny in FAMILIES.items() if tiny.config().architectures == [family.architecture]
    )
    raw = saved(name)
    assert raw["model_type"] == family.model_type
    assert built({**raw, "architectures": None}) == built(raw)
    assert "give those that belong together" in refusal({**raw, "model_type": "gpt2"})
