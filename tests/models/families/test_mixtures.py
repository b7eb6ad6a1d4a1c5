"""Mixtures of experts: how files store them, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from outrider.errors import ModelError
from outrider.formats.registry import FORMATS
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.parts import Experts, Gated
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from tests.models.factories import exact_backend, read_all, write_hf
from tests.models.families.table import FAMILIES, GPT_OSS, config
from tests.models.families.test_spellings import built, refusal, saved

E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
PACKED = ("gate_up_proj", "down_proj")
WEIGHTS = "model.safetensors"


def values_of(blocks: Tensor, scales: Tensor) -> Tensor:
    """float32 [experts, outputs, inputs], as the format is defined: two codes in a byte, the first low."""
    codes = blocks.numpy()
    numbers = np.stack([E2M1[codes & 15], E2M1[codes >> 4]], axis=-1).reshape(*codes.shape[:-1], 32)
    scaled = numbers * np.exp2(scales.numpy().astype(np.float64) - 127)[..., None]
    return torch.from_numpy(scaled.reshape(*scaled.shape[:2], -1).astype(np.float32))


@pytest.fixture(scope="module")
def mxfp4(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder as OpenAI published it, and transformers' model of the same values."""
    folder = tmp_path_factory.mktemp("mxfp4")
    model = write_hf(
        folder, config("GptOssConfig", **GPT_OSS | {"hidden_size": 64, "intermediate_size": 32})()
    )
    stored, draw = load_file(folder / WEIGHTS), torch.Generator().manual_seed(1)
    for layer, block in enumerate(model.model.layers):
        for name in PACKED:
            parameter = getattr(block.mlp.experts, name)
            experts, inputs, outputs = parameter.shape
            shape = (experts, outputs, inputs // 32)
            blocks = torch.randint(0, 256, (*shape, 16), generator=draw).to(torch.uint8)
            scales = torch.randint(121, 126, shape, generator=draw).to(torch.uint8)
            parameter.data = values_of(blocks, scales).transpose(1, 2).contiguous()
            stem = f"model.layers.{layer}.mlp.experts.{name}"
            del stored[stem]
            stored |= {f"{stem}_blocks": blocks, f"{stem}_scales": scales}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    raw = json.loads((folder / "config.json").read_text())
    raw["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
    (folder / "config.json").write_text(json.dumps(raw))
    return folder, model


def test_mxfp4_is_used_as_it_is_stored(mxfp4: tuple[Path, Any]) -> None:
    folder, model = mxfp4
    checkpoint = open_checkpoint(str(folder))
    for block, expected in zip(checkpoint.config.tree.blocks, model.model.layers, strict=True):
        mixture = block.feed_forward.mixer
        assert isinstance(mixture, Experts)
        fused, down = (getattr(expected.mlp.experts, name).transpose(1, 2) for name in PACKED)
        wanted = fused[:, ::2], fused[:, 1::2], down
        for stack, values in zip(mixture.stacks, wanted, strict=True):
            for tensor, own in zip(stack.matrices, values, strict=True):
                weight = checkpoint.weight(tensor)
                assert weight.format is FORMATS["MXFP4"]
                assert np.array_equal(weight.dequantize(), own.detach().numpy())


@pytest.mark.parametrize("backend", ["torch", "native"])
def test_logits_of_mxfp4(mxfp4: tuple[Path, Any], backend: str) -> None:
    folder, reference = mxfp4
    tokens = list(range(40, 80))
    runner = runner_of(folder, backend)
    actual = runner.forward([Span(tokens, 0, tables(runner), len(tokens))])
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    error = np.abs(actual - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert error.max() < 1e-4


def runner_of(folder: Path, backend: str) -> ModelRunner:
    model = Model(open_checkpoint(str(folder)), exact_backend(backend))
    return ModelRunner(model, num_blocks=10, block_size=8, prefix_caching=False)


def tables(runner: ModelRunner) -> tuple[range, ...]:
    return (range(10),) * len(runner.pool.of_groups)


@pytest.mark.parametrize(
    "name", ["mixtral", "qwen3-moe-some-dense", "granite-moe-shared", "gpt-oss", "qwen2-moe"]
)
def test_a_row_does_not_depend_on_others(tmp_path: Path, name: str) -> None:
    """Whichever of them go to its experts."""
    write_hf(tmp_path, FAMILIES[name].config())
    runner = runner_of(tmp_path, "native")
    tokens = list(range(30, 70))
    whole = runner.forward([Span(tokens, 0, tables(runner), len(tokens))])
    for size in (1, 3, 13):
        starts = range(0, len(tokens), size)
        chunks = [
            runner.forward([Span(tokens[at : at + size], at, tables(runner), len(tokens[at : at + size]))])
            for at in starts
        ]
        assert np.array_equal(np.concatenate(chunks), whole)


@pytest.mark.parametrize("name", ["qwen2-moe", "qwen3-moe"])
def test_experts_that_are_stored_as_one(tmp_path: Path, name: str) -> None:
    """As some files have them: gate and up of all experts, one above the other."""
    write_hf(tmp_path, FAMILIES[name].config())
    expected = read_all(tmp_path)
    stored = load_file(tmp_path / WEIGHTS)
    for layer in range(2):
        begins = f"model.layers.{layer}.mlp.experts."
        gates, ups, downs = (
            torch.stack([stored.pop(f"{begins}{expert}.{kind}_proj.weight") for expert in range(8)])
            for kind in ("gate", "up", "down")
        )
        stored |= {f"{begins}gate_up_proj": torch.cat([gates, ups], dim=1), f"{begins}down_proj": downs}
    save_file(stored, tmp_path / WEIGHTS, metadata={"format": "pt"})
    found = read_all(tmp_path)
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], values) for key, values in expected.items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gate_up_proj_scales": None}, "gate_up_proj_scales' is missing"),
        ({"gate_up_proj_scales": torch.zeros(5, 64, 1, dtype=torch.uint8)}, "implies U8 (5, 64, 2)"),
        ({"down_proj_blocks": torch.zeros(5, 64, 16, dtype=torch.uint8)}, "[experts, outputs, groups, 16]"),
        ({"down_proj_blocks": torch.zeros(5, 64, 1, 16)}, "is of type F32"),
    ],
    ids=str,
)
def test_broken_mxfp4(mxfp4: tuple[Path, Any], tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    folder, _ = mxfp4
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    stored = load_file(folder / WEIGHTS)
    begins = "model.layers.1.mlp.experts."
    stored |= {begins + name: tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in stored.items() if tensor is not None}, tmp_path / WEIGHTS)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(tmp_path))
    assert said in str(caught.value)
    assert begins in str(caught.value)


def test_layers_without_experts() -> None:
    """By every second layer, and by number."""
    mixers = [type(block.feed_forward.mixer) for block in built(saved("qwen3-moe-some-dense")).blocks]
    assert mixers == [Gated, Gated, Gated, Experts, Gated]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("qwen3-moe", {"num_experts": 9}, "num_local_experts = 8 and num_experts = 9 mean the same"),
        ("qwen3-moe", {"num_experts_per_tok": 9}, "num_experts_per_tok = 9; it has to be at most"),
        ("qwen3-moe", {"num_local_experts": 2**15}, "num_local_experts = 32768; it has to be at most 16384"),
        ("qwen3-moe", {"mlp_only_layers": [2]}, "mlp_only_layers = [2]; it has to be a list of numbers"),
        ("qwen3-moe", {"mlp_only_layers": 1}, "mlp_only_layers = 1"),
        ("qwen3-moe", {"decoder_sparse_step": 0}, "decoder_sparse_step = 0"),
        ("qwen3-moe", {"moe_intermediate_size": None}, "moe_intermediate_size is missing"),
        ("gpt-oss", {"swiglu_limit": 5.0}, "swiglu_limit = 5.0 is not supported; supported is 7.0"),
        ("gpt-oss", {"swiglu_alpha": 1.0}, "swiglu_alpha = 1.0 is not supported"),
        ("gpt-oss", {"hidden_act": "gelu"}, "activation 'gelu' is not supported"),
        ("mixtral", {"num_local_experts": 0}, "num_local_experts = 0"),
        ("qwen2-moe", {"shared_expert_intermediate_size": 0}, "shared_expert_intermediate_size = 0"),
        ("granite-moe-shared", {"shared_intermediate_size": -1}, "shared_intermediate_size = -1"),
        ("lfm2-moe", {"num_dense_layers": -1}, "num_dense_layers = -1"),
        ("lfm2-moe", {"expert_gating_func": 1}, "expert_gating_func = 1; it has to be 2, the sigmoid"),
    ],
    ids=str,
)
def test_what_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    raw = saved(name) | changes
    assert said in refusal({key: value for key, value in raw.items() if value is not None})


@pytest.mark.parametrize(
    "architecture",
    ["GraniteMoeHybridForCausalLM", "DeepseekV3ForCausalLM", "Llama4ForCausalLM", "Ernie4_5_MoeForCausalLM"],
)
def test_other_mixtures_are_refused_by_name(architecture: str) -> None:
    assert f"architecture '{architecture}' is not supported" in refusal({"architectures": [architecture]})
