"""Public heads: every field of theirs is used, known to be harmless, or refused by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from outrider import LLM, SamplingParams
from outrider.errors import ModelError
from outrider.models.checkpoint import locate, open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, check_groups, is_head, locate_head, quantized
from outrider.models.head_config import HeadConfig
from outrider.models.head_settings import HARMLESS
from outrider.models.tensors import Place, Tensor
from tests.models.factories import tiny_config, write_hf
from tests.models.head_features import FEATURES, arrays, edit, random_head
from tests.models.public_heads import LLAMA, READ, REFUSED

NESTED = ("transformer_layer_config", "eagle_config")
HEAD = LLAMA | {"architectures": ["LlamaForCausalLMEagle3"], "draft_vocab_size": 32000}


def parse(raw: dict[str, Any]) -> HeadConfig:
    return HeadConfig.parse(raw, "config.json")


def message(raw: dict[str, Any]) -> str:
    with pytest.raises(ModelError) as caught:
        parse(raw)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def changed(path: Path, **fields: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("target")
    write_hf(path, tiny_config(hidden_size=64, num_hidden_layers=8))
    return path


@pytest.mark.parametrize("name", READ)
def test_every_field_is_used_or_known(name: str) -> None:
    """One that is not known to be harmless is looked at, since nonsense in its place is refused by name."""
    raw = READ[name]
    head = parse(raw)
    for within in (None, *(key for key in NESTED if key in raw)):
        fields = raw if within is None else raw[within]
        for key in fields:
            nonsense = {**fields, key: [["?"]]}
            changed = nonsense if within is None else {**raw, within: nonsense}
            if key in HARMLESS - {"architectures", "model_type"}:
                assert parse(changed) == head
            elif within is None and key in raw.get("transformer_layer_config", {}):
                assert parse(changed) == head  # the layer's own goes first
            else:
                assert key in message(changed)


@pytest.mark.parametrize("within", [None, *NESTED])
def test_a_field_that_nobody_knows_is_refused(within: str | None) -> None:
    for raw in READ.values():
        if within is None:
            assert "norm_of_tomorrow = True" in message({**raw, "norm_of_tomorrow": True})
        elif within in raw:
            assert "norm_of_tomorrow = True" in message(
                {**raw, within: {**raw[within], "norm_of_tomorrow": True}}
            )
    assert parse({**HEAD, "norm_of_tomorrow": None}) == parse(HEAD)


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_called_what_they_are(name: str, tmp_path: Path) -> None:
    raw, said = REFUSED[name]
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert is_head(tmp_path)
    assert re.search(said, message(raw))


def test_which_layers_are_read() -> None:
    key = "eagle_aux_hidden_state_layer_ids"
    # Outputs in eagle_config, inputs outside of it: both are the usual ones of 94 layers, but for the last.
    assert parse(READ["lmsys/Qwen3-235B-A22B-EAGLE3 (SpecForge)"]).state_layers == (2, 47, 91)
    assert parse({**HEAD, key: [2, 47, 91]}).state_layers == (2, 47, 91)
    assert parse({**HEAD, key: [2, 47], "eagle_config": {key: [1, 46]}}).state_layers == (2, 47)
    absent: tuple[dict[str, Any], ...] = ({}, {key: []}, {"eagle_config": {key: []}}, {"eagle_config": None})
    for none in absent:
        assert parse({**HEAD, **none}).state_layers is None
    assert parse(READ["nvidia/gpt-oss-120b-Eagle3 (ModelOpt)"]).reads_output
    assert "which are outputs" in message({**HEAD, key: [2, 47], "eagle_config": {key: [2, 47]}})
    assert "num_aux_hidden_states = 4" in message({**HEAD, "num_aux_hidden_states": 4})
    for wrong in ([2, 1], [1, 1], ["1"], [1.0], [[1]], [True], {"1": 2}, "123", 5, [-1], [2**40]):
        assert key in message({**HEAD, key: wrong})


@pytest.mark.parametrize("field", [key for key, value in HEAD.items() if type(value) is int])
@pytest.mark.parametrize("value", [0, -1, 2**31, 2**70, 1.5, "4", True, [4], float("inf")])
def test_sizes_are_looked_at_before_anything_is_made(field: str, value: Any) -> None:
    if field not in HARMLESS:
        if value is True and field == "num_hidden_layers":
            return  # as good as 1
        assert field in message({**HEAD, field: value})


@pytest.mark.parametrize("field", ["vocab_size", "draft_vocab_size", "head_dim", "hidden_size", "num_labels"])
@pytest.mark.parametrize("value", [2**20, 2**31 - 1])
def test_a_size_that_the_tensors_do_not_have(field: str, value: int, target: Path, tmp_path: Path) -> None:
    config = open_checkpoint(str(target)).config
    random_head(tmp_path, config)
    changed(tmp_path, **{field: value})
    if field == "num_labels":
        HeadCheckpoint(tmp_path).layers(config, "the target")
        return
    with pytest.raises(ModelError):
        HeadCheckpoint(tmp_path).layers(config, "the target")
    with pytest.raises(ModelError):
        HeadCheckpoint(tmp_path).targets()


def test_tensors_that_are_not_read_are_refused(target: Path, tmp_path: Path) -> None:
    config = open_checkpoint(str(target)).config
    for extra in (
        "midlayer.self_attn.q_norm.weight",
        "midlayer.self_attn.q_proj.bias",
        "fc.bias",
        "input_norm.weight",
        "fc.weight_scale",
        "fc.weight.scales",
        "embed_tokens.weight.codes",
    ):
        random_head(tmp_path, config)
        edit(tmp_path, **{extra: torch.ones(8)})
        with pytest.raises(ModelError, match=f"'{extra}' is (not read|missing)|cannot be in 4 bits"):
            HeadCheckpoint(tmp_path).layers(config, "the target")
    random_head(tmp_path, config)
    edit(tmp_path, **{"midlayer.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    HeadCheckpoint(tmp_path).layers(config, "the target")


def test_weights_of_no_float_type_are_refused(target: Path, tmp_path: Path) -> None:
    config = open_checkpoint(str(target)).config
    tensors = random_head(tmp_path, config)
    for name in ("fc.weight", "midlayer.mlp.gate_proj.weight", "norm.weight"):
        random_head(tmp_path, config)
        edit(tmp_path, **{name: tensors[name].to(torch.int64)})
        with pytest.raises(ModelError, match=f"'{name}' is of type I64; supported are F32, F16, BF16, F64; "):
            HeadCheckpoint(tmp_path).layers(config, "the target")
    random_head(tmp_path, config)
    edit(tmp_path, d2t=torch.zeros(96))
    with pytest.raises(ModelError, match="'d2t' is of F32; it has to be of I64 or "):
        HeadCheckpoint(tmp_path).targets()


def four_bits_of(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in quantized(arrays(tensors)).items()}


def test_parts_of_four_bits_that_do_not_fit(target: Path, tmp_path: Path) -> None:
    config = open_checkpoint(str(target)).config
    whole = random_head(tmp_path, config)
    small, name = four_bits_of(whole), "midlayer.self_attn.q_proj.weight"
    parts = {part: small[name + part] for part in (".codes", ".scales")}

    def refused(said: str, *gone: str, **changes: torch.Tensor) -> None:
        random_head(tmp_path, config)
        edit(tmp_path, *gone, **{name + part: tensor for part, tensor in (parts | changes).items()})
        with pytest.raises(ModelError, match=said):
            HeadCheckpoint(tmp_path).layers(config, "the target")

    refused("'midlayer.self_attn.q_proj.weight' is there twice, in 4 bits too")
    refused(r"cannot be in 4 bits: codes are U8 \(3, 64\)", name, **{".codes": parts[".codes"][:3].clone()})
    refused("cannot be in 4 bits: .* scales F32 ", name, **{".scales": parts[".scales"].float()})
    halved = {part: tensor[:, : tensor.shape[1] // 2].contiguous() for part, tensor in parts.items()}
    refused(r"q_proj.weight' has shape \(64, 64\); config.json implies \(64, 128\)", name, **halved)


def test_four_bits_that_would_be_parted_within_a_block_are_refused(tmp_path: Path) -> None:
    """What reads [embedding, state] is parted between the two, and 48 inputs end within a block of 32."""
    write_hf(tmp_path / "target", tiny_config(hidden_size=48, head_dim=16))
    config = open_checkpoint(str(tmp_path / "target")).config
    tensors = random_head(tmp_path / "head", config)
    name = "midlayer.self_attn.v_proj.weight"
    small = four_bits_of({name: tensors[name]})
    edit(tmp_path / "head", name, **small)
    with pytest.raises(ModelError, match=r"v_proj.weight' is Q4_0 and would be parted at input 48"):
        HeadCheckpoint(tmp_path / "head").layers(config, "the target")
    with pytest.raises(ModelError, match=r"inputs; 4 bits need a multiple of 32"):
        check_groups(HeadConfig.for_target(config, draft_vocab_size=96))


def test_other_names_and_layouts_are_the_same_head(target: Path, tmp_path: Path) -> None:
    config = open_checkpoint(str(target)).config
    tensors = random_head(tmp_path, config, norm_before_fc=True)
    head = HeadCheckpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    renamed = {
        name.replace("midlayer.", "model.layers.0."): tensor for name, tensor in load_file(file).items()
    }
    save_file(renamed, file)
    raw = json.loads((tmp_path / "config.json").read_text())
    top = {"draft_vocab_size", "norm_before_fc", "norm_before_residual", "target_num_hidden_layers"}
    nested = {key: value for key, value in raw.items() if key not in top and "eagle" not in key}
    layout = {"architectures": ["Eagle3DraftModel"], "speculators_model_type": "eagle3"}
    layers = {"eagle_aux_hidden_state_layer_ids": list(head.layers(config, "the target"))}
    kept = {key: raw[key] for key in top}
    (tmp_path / "config.json").write_text(
        json.dumps({**layout, **layers, **kept, "transformer_layer_config": nested})
    )
    other = HeadCheckpoint(tmp_path)
    assert other.config == head.config
    assert other.layers(config, "the target") == head.layers(config, "the target")
    name = "midlayer.self_attn.q_proj.weight"
    assert np.array_equal(other.stored[name].floats(), tensors[name])
    save_file(renamed | {name: tensors[name]}, file)
    with pytest.raises(ModelError, match="there twice"):
        HeadCheckpoint(tmp_path)


def test_eagle_1_of_its_own_repository(tmp_path: Path) -> None:
    """Its config.json is that of a Llama of one layer; only its tensors tell."""
    raw = LLAMA | {"architectures": ["LlamaForCausalLM"], "bias": True}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    tensors = {"fc.weight": torch.ones(4, 8), "layers.0.mlp.up_proj.weight": torch.ones(4, 4)}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    for _ in range(2):
        assert is_head(tmp_path)
        with pytest.raises(ModelError, match="is an EAGLE-1 or EAGLE-2 head"):
            HeadCheckpoint(tmp_path)
        save_file(tensors, tmp_path / "model.safetensors")
    write_hf(tmp_path / "model", tiny_config(num_hidden_layers=1), shards=2)
    assert not is_head(tmp_path / "model")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_may_hold_anything(legacy: bool, target: Path, tmp_path: Path) -> None:
    config = open_checkpoint(str(target)).config
    random_head(tmp_path, config)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    file.unlink()

    def refused(held: Any, said: str) -> None:
        torch.save(held, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(ModelError, match=said) as caught:
            HeadCheckpoint(tmp_path)
        assert "\n" not in str(caught.value)

    refused([1, 2], "holds a list")
    refused({"fc.weight": "text"}, "'fc.weight' is a str")
    refused({7: tensors["fc.weight"]}, "7 is a Tensor")
    refused(tensors | {"fc.weight": torch.ones(2, 2).to_sparse()}, "another layout")
    refused(tensors | {"fc.weight": torch.ones(1).expand(2**20, 2**20)}, "and the file")
    refused({"path": Path("x")}, "truncated or corrupt")
    for content in (b"", b"\x80", b"not a pickle", b"PK\x03\x04"):
        (tmp_path / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(ModelError, match="truncated or corrupt"):
            HeadCheckpoint(tmp_path)


def test_tied_tensors_of_an_old_pickle_are_read_twice(target: Path, tmp_path: Path) -> None:
    """They lie in memory, whose pages must not be given back as a file's are."""
    config = open_checkpoint(str(target)).config
    FEATURES["own table"](tmp_path, config)
    tensors = load_file(tmp_path / "model.safetensors")
    table = torch.randn(config.vocab_size, 64)
    tensors |= {"embed_tokens.weight": table, "lm_head.weight": table}
    (tmp_path / "model.safetensors").unlink()
    gone = ("d2t", "t2d")
    held = {name: tensor for name, tensor in tensors.items() if name not in gone}
    torch.save(held, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    changed(tmp_path, draft_vocab_size=config.vocab_size)
    head = HeadCheckpoint(tmp_path)
    for name in ("embed_tokens.weight", "lm_head.weight"):
        place = Place(name)
        for _ in range(2):
            assert np.array_equal(head.stored[name].floats(), table)
            head.release(Tensor(place, place, (config.vocab_size, 64)))


def test_the_pickle_of_a_head_is_downloaded_and_of_a_model_it_is_not(
    monkeypatch: pytest.MonkeyPatch, target: Path, tmp_path: Path
) -> None:
    random_head(tmp_path, open_checkpoint(str(target)).config)
    download = Mock(return_value=str(tmp_path))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)

    def patterns() -> list[list[str]]:
        asked = [call.kwargs["allow_patterns"] for call in download.call_args_list]
        download.reset_mock()
        return asked

    locate_head("org/head")
    assert ["pytorch_model.bin" in asked for asked in patterns()] == [False]
    (tmp_path / "model.safetensors").rename(tmp_path / "elsewhere")
    locate_head("org/head")
    assert ["pytorch_model.bin" in asked for asked in patterns()] == [False, True]
    locate("org/model")
    assert ["pytorch_model.bin" in asked for asked in patterns()] == [False]


@pytest.mark.parametrize(
    "feature",
    [
        "fc_norm",
        "no states",
        "the target's output layer",
        "attention_bias",
        "many types",
        "two layers with everything",
        "layers that differ",
    ],
)
def test_tokens_are_the_targets(feature: str, target: Path, tmp_path: Path) -> None:
    FEATURES[feature](tmp_path, open_checkpoint(str(target)).config)
    params = SamplingParams(temperature=0.7, seed=1, max_tokens=12)
    alone = LLM(str(target), device="cpu").generate(["a b c"], params)[0]
    llm = LLM(str(target), device="cpu", speculative_model=str(tmp_path), num_speculative_tokens=3)
    assert llm.generate(["a b c"], params)[0].outputs[0].token_ids == alone.outputs[0].token_ids


def test_copies_of_the_target_are_passed_over(target: Path, tmp_path: Path) -> None:
    """Which Speculators trains with, and some files hold."""
    tensors = random_head(tmp_path, open_checkpoint(str(target)).config)
    edit(tmp_path, **{"verifier_lm_head.weight": torch.ones(96, 64), "verifier_norm.weight": torch.ones(64)})
    read = HeadCheckpoint(tmp_path)
    read.layers(open_checkpoint(str(target)).config, "the target")
    assert {*tensors} <= {*read.stored}
    assert not [name for name in read.stored if name.startswith("verifier")]
