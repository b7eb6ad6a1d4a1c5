"""Weights that other engines have quantised, against each scheme's public formula in float64.

Files are written by hand, as the libraries' documentation has them: AutoAWQ's `pack`, AutoGPTQ's `pack`,
compressed-tensors' `pack_to_int32`, and the FP8 formats of DeepSeek, FBGEMM and llm-compressor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from outrider.errors import ModelError
from outrider.models.schemes import open_weights
from outrider.models.stored import StoredTensor

NAME = "model.layers.0.mlp.down_proj"
OUTPUTS, INPUTS = 16, 256
Numbers = NDArray[Any]
Parts = dict[str, torch.Tensor]


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbers_of(group: int, seed: int = 0) -> tuple[Numbers, Numbers, Numbers]:
    """Codes [outputs, inputs] of 4 bits; zero points 1 to 15 and float16 scales, [outputs, groups]."""
    random, groups = draw(seed), INPUTS // group
    codes = random.integers(0, 16, (OUTPUTS, INPUTS))
    zeros = random.integers(1, 16, (OUTPUTS, groups))
    scales = random.uniform(0.001, 0.02, (OUTPUTS, groups)).astype(np.float16)
    return codes, zeros, scales


def formula(codes: Numbers, zeros: Numbers, scales: Numbers, index: Numbers) -> Numbers:
    """scale * (code - zero) in float64; index: the group of each input."""
    return np.asarray(scales.astype(np.float64)[:, index] * (codes - zeros[:, index].astype(np.float64)))


def words(codes: Numbers, order: tuple[int, ...] = tuple(range(8)), bits: int = 4) -> torch.Tensor:
    """int32 [n, m / 8] of codes [n, m]: of each eight, that of place order[0] is in the lowest bits."""
    count = 32 // bits
    packed = np.zeros((codes.shape[0], codes.shape[1] // count), np.uint32)
    for row in range(codes.shape[0]):
        for word in range(packed.shape[1]):
            for place in range(count):
                packed[row, word] |= np.uint32(int(codes[row, word * count + order[place]]) << bits * place)
    return torch.from_numpy(packed.view(np.int32))


def opened(
    folder: Path, parts: Parts, config: dict[str, Any], **more: torch.Tensor
) -> dict[str, StoredTensor]:
    tensors = {f"{NAME}.{end}": tensor.contiguous() for end, tensor in parts.items()} | more
    (folder / "model.safetensors").unlink(missing_ok=True)  # it may be mapped
    save_file(tensors, folder / "model.safetensors")
    return open_weights(folder, {"quantization_config": config})


def weight(folder: Path, parts: Parts, config: dict[str, Any]) -> StoredTensor:
    (stored,) = opened(folder, parts, config).values()
    assert stored.name == f"{NAME}.weight"
    assert stored.file == folder / "model.safetensors"
    return stored


def check(stored: StoredTensor, format: str, expected: Numbers) -> None:
    """Format and values; that the weight is of the format that was promised, and can be read again."""
    assert stored.format.name == format
    assert stored.shape == expected.shape
    np.testing.assert_allclose(stored.floats(), expected, rtol=2e-7, atol=0)
    made = stored.weight()
    assert made.format is stored.format
    assert made.data.shape == (expected.shape[0], made.format.row_bytes(expected.shape[1]))
    stored.release()
    np.testing.assert_array_equal(made.dequantize(), stored.floats())


# AWQ

AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)


def awq_parts(group: int) -> tuple[Parts, Numbers]:
    codes, zeros, scales = numbers_of(group)
    parts = {
        "qweight": words(codes.T, AWQ_ORDER),
        "qzeros": words(zeros.T, AWQ_ORDER),
        "scales": torch.from_numpy(scales.T.copy()),
    }
    return parts, formula(codes, zeros, scales, np.arange(INPUTS) // group)


@pytest.mark.parametrize(
    ("group", "format"), [(32, "U4_32"), (64, "U4_64"), (128, "U4_128"), (256, "U4_128")]
)
def test_awq(tmp_path: Path, group: int, format: str) -> None:
    parts, expected = awq_parts(group)
    check(weight(tmp_path, parts, AWQ | {"group_size": group}), format, expected)


def test_the_file_of_autoawq_says_the_same_in_other_words(tmp_path: Path) -> None:
    parts, expected = awq_parts(128)
    save_file({f"{NAME}.{end}": tensor for end, tensor in parts.items()}, tmp_path / "model.safetensors")
    (tmp_path / "quant_config.json").write_text('{"q_group_size": 128, "w_bit": 4, "version": "GEMM"}')
    check(open_weights(tmp_path, {})[f"{NAME}.weight"], "U4_128", expected)


# GPTQ

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False, "sym": False}


def gptq_parts(group: int, index: Numbers | None = None, above: int = 1) -> tuple[Parts, Numbers]:
    codes, zeros, scales = numbers_of(group)
    in_order = np.arange(INPUTS) // group
    parts = {
        "qweight": words(codes).T.contiguous(),
        "qzeros": words((zeros - above).T),
        "scales": torch.from_numpy(scales.T.copy()),
        "g_idx": torch.from_numpy((in_order if index is None else index).astype(np.int32)),
    }
    return parts, formula(codes, zeros, scales, in_order if index is None else index)


@pytest.mark.parametrize(("group", "format"), [(32, "U4_32"), (64, "U4_64"), (128, "U4_128")])
def test_gptq(tmp_path: Path, group: int, format: str) -> None:
    parts, expected = gptq_parts(group)
    stored = weight(tmp_path, parts, GPTQ)
    check(stored, format, expected)
    assert stored.weight().columns is None
    del parts["g_idx"]
    check(weight(tmp_path, parts, GPTQ), format, expected)


def test_gptq_with_one_scale_for_an_output(tmp_path: Path) -> None:
    parts, expected = gptq_parts(INPUTS)
    check(weight(tmp_path, parts, GPTQ | {"group_size": -1}), "U4_128", expected)


@pytest.mark.parametrize("written", ["gptq", "gptq_v2"])
def test_gptq_zero_points_are_stored_as_one_less_but_in_its_second_format(
    tmp_path: Path, written: str
) -> None:
    parts, expected = gptq_parts(64, above=0 if written == "gptq_v2" else 1)
    check(weight(tmp_path, parts, GPTQ | {"checkpoint_format": written}), "U4_64", expected)


@pytest.mark.parametrize("group", [32, 128])
def test_gptq_with_inputs_in_the_order_of_their_activations(tmp_path: Path, group: int) -> None:
    index = draw(1).permutation(np.arange(INPUTS) // group)
    parts, expected = gptq_parts(group, index)
    stored = weight(tmp_path, parts, GPTQ | {"desc_act": True})
    check(stored, f"U4_{group}", expected)
    columns = stored.weight().columns
    assert columns is not None
    assert sorted(columns.tolist()) == list(range(INPUTS))


# FP8

E4M3 = torch.float8_e4m3fn


def fp8_codes(outputs: int = OUTPUTS, inputs: int = INPUTS) -> torch.Tensor:
    return torch.from_numpy(draw().normal(size=(outputs, inputs)) * 20).to(E4M3)


@pytest.mark.parametrize("shape", [(256, 256), (200, 384), (16, 144), (300, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_in_blocks(tmp_path: Path, shape: tuple[int, int], dtype: torch.dtype) -> None:
    codes = fp8_codes(*shape)
    blocks = -(-shape[0] // 128), -(-shape[1] // 128)
    scales = torch.from_numpy(draw(1).uniform(0.001, 0.01, blocks)).to(dtype)
    expected = codes.double().numpy()
    for row in range(shape[0]):
        for column in range(0, shape[1], 128):
            expected[row, column : column + 128] *= scales[row // 128, column // 128].item()
    config = {
        "quant_method": "fp8",
        "activation_scheme": "dynamic",
        "fmt": "e4m3",
        "weight_block_size": [128, 128],
    }
    check(weight(tmp_path, {"weight": codes, "weight_scale_inv": scales}, config), "F8_BLOCK", expected)


TENSOR = {"quant_method": "fp8", "activation_scheme": "static"}
FBGEMM = {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}


def compressed(weights: dict[str, Any], written: str, activations: Any = None) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": weights, "input_activations": activations}
    return {
        "quant_method": "compressed-tensors",
        "format": written,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
    }


FLOAT = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (TENSOR, ()),
        (TENSOR, (1,)),
        (FBGEMM, (OUTPUTS, 1)),
        (
            compressed(FLOAT, "float-quantized", {"num_bits": 8, "type": "float", "dynamic": True}),
            (OUTPUTS, 1),
        ),
        (compressed(FLOAT | {"strategy": "tensor"}, "float-quantized"), (1,)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fp8_with_a_scale_of_the_tensor_or_of_each_output(
    tmp_path: Path, config: dict[str, Any], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    codes = fp8_codes()
    scale = torch.from_numpy(np.asarray(draw(1).uniform(0.001, 0.01, shape))).to(dtype)
    expected = codes.double().numpy() * scale.double().numpy().reshape(-1, 1)
    check(weight(tmp_path, {"weight": codes, "weight_scale": scale}, config), "F8_E4M3", expected)


def test_compressed_tensors_fp8_in_blocks(tmp_path: Path) -> None:
    codes, scales = fp8_codes(256, 256), torch.tensor([[0.5, 0.25], [2.0, 1.0]])
    config = compressed(FLOAT | {"strategy": "block", "block_structure": [128, 128]}, "float-quantized")
    expected = codes.double().numpy() * np.kron(scales.numpy(), np.ones((128, 128)))
    check(weight(tmp_path, {"weight": codes, "weight_scale": scales}, config), "F8_BLOCK", expected)


def test_scales_of_activations_are_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    parts = {"weight": fp8_codes(), "weight_scale": torch.ones(1), "input_scale": torch.ones(1)}
    attention = "model.layers.0.self_attn"
    more = {f"{attention}.k_scale": torch.ones(1), f"{attention}.v_scale": torch.ones(1)}
    tensors = opened(tmp_path, parts, TENSOR, **more)
    assert tensors.keys() == {f"{NAME}.weight"}
    assert caplog.text.count("activations stay as they are; fp8 would round them too") == 1


# compressed-tensors, integers

INT4 = {
    "num_bits": 4,
    "type": "int",
    "strategy": "group",
    "group_size": 64,
    "symmetric": True,
    "actorder": None,
}


def packed_parts(group: int, symmetric: bool, index: Numbers | None = None) -> tuple[Parts, Numbers]:
    """Codes are of -8 to 7; 8 is added to them, and to zero points, before they are packed."""
    codes, zeros, scales = numbers_of(group)
    in_order = np.arange(INPUTS) // group
    parts = {
        "weight_packed": words(codes),
        "weight_scale": torch.from_numpy(scales.astype(np.float32)).bfloat16(),
        "weight_shape": torch.tensor([OUTPUTS, INPUTS]),
    }
    if not symmetric:
        parts["weight_zero_point"] = words(zeros.T).T.contiguous()
    if index is not None:
        parts["weight_g_idx"] = torch.from_numpy(index.astype(np.int32))
    signed = zeros - 8 if not symmetric else np.zeros_like(zeros)
    scales = parts["weight_scale"].double().numpy()
    return parts, formula(codes - 8, signed, scales, in_order if index is None else index)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(
    ("group", "format"), [(32, "U4_32"), (64, "U4_64"), (128, "U4_128"), (256, "U4_128")]
)
def test_packed_integers(tmp_path: Path, group: int, format: str, symmetric: bool) -> None:
    parts, expected = packed_parts(group, symmetric)
    config = compressed(INT4 | {"group_size": group, "symmetric": symmetric}, "pack-quantized")
    if group == INPUTS:
        config = compressed(
            INT4 | {"strategy": "channel", "group_size": None, "symmetric": symmetric}, "pack-quantized"
        )
    check(weight(tmp_path, parts, config), format, expected)


def test_packed_integers_with_zero_points_that_are_not_packed(tmp_path: Path) -> None:
    parts, expected = packed_parts(64, symmetric=False)
    zeros = numbers_of(64)[1]
    parts["weight_zero_point"] = torch.from_numpy((zeros - 8).astype(np.int8))
    check(
        weight(tmp_path, parts, compressed(INT4 | {"symmetric": False}, "pack-quantized")), "U4_64", expected
    )


def test_packed_integers_with_inputs_in_the_order_of_their_activations(tmp_path: Path) -> None:
    index = draw(1).permutation(np.arange(INPUTS) // 64)
    parts, expected = packed_parts(64, symmetric=True, index=index)
    config = compressed(INT4 | {"actorder": "group"}, "pack-quantized")
    check(weight(tmp_path, parts, config), "U4_64", expected)
    del parts["weight_g_idx"]
    assert "weight_g_idx' is missing" in refusal(tmp_path, parts, config)
    parts["weight_g_idx"] = torch.full((INPUTS,), -1, dtype=torch.int32)  # not set
    check(weight(tmp_path, parts, config), "U4_64", packed_parts(64, symmetric=True)[1])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("group", "format"), [(INPUTS, "Q8_CHANNEL"), (32, "Q8_0"), (128, "Q8_0")])
def test_integers_of_eight_bits(tmp_path: Path, packed: bool, group: int, format: str) -> None:
    codes = draw().integers(-128, 128, (OUTPUTS, INPUTS))
    scales = torch.from_numpy(draw(1).uniform(0.001, 0.02, (OUTPUTS, INPUTS // group))).half()
    parts = {"weight": torch.from_numpy(codes.astype(np.int8)), "weight_scale": scales}
    if packed:
        stored = {"weight_packed": words(codes + 128, bits=8), "weight_shape": torch.tensor(codes.shape)}
        parts = stored | {"weight_scale": scales}
    config = compressed(
        INT4 | {"num_bits": 8, "group_size": group}, "pack-quantized" if packed else "int-quantized"
    )
    zeros = np.zeros((OUTPUTS, INPUTS // group))
    check(
        weight(tmp_path, parts, config),
        format,
        formula(codes, zeros, scales.numpy(), np.arange(INPUTS) // group),
    )


def test_layers_of_two_kinds(tmp_path: Path) -> None:
    """Targets are names, patterns of names, and classes for all the others."""
    parts, expected = packed_parts(64, symmetric=True)
    config = compressed(FLOAT, "mixed-precision")
    config["config_groups"]["group_1"] = {"targets": ["re:.*down_proj$"], "weights": INT4}
    codes, scale = fp8_codes(), torch.full((OUTPUTS, 1), 0.5)
    other = {"model.layers.0.mlp.up_proj.weight": codes, "model.layers.0.mlp.up_proj.weight_scale": scale}
    tensors = opened(tmp_path, parts, config, **other)
    check(tensors[f"{NAME}.weight"], "U4_64", expected)
    check(tensors["model.layers.0.mlp.up_proj.weight"], "F8_E4M3", codes.double().numpy() * 0.5)


# What all of them share


def test_layers_that_a_scheme_leaves_out_are_taken_as_they_are(tmp_path: Path) -> None:
    parts, expected = awq_parts(128)
    gate = torch.randn(4, INPUTS).bfloat16()
    bias, norm = torch.randn(OUTPUTS).half(), torch.randn(INPUTS)
    more = {"model.layers.0.mlp.gate.weight": gate, f"{NAME}.bias": bias, "model.norm.weight": norm}
    tensors = opened(tmp_path, parts, AWQ | {"modules_to_not_convert": ["gate"]}, **more)
    assert tensors.keys() == {f"{NAME}.weight", *more}
    check(tensors[f"{NAME}.weight"], "U4_128", expected)
    for name, tensor, format in zip(more, (gate, bias, norm), ("BF16", "F16", "F32"), strict=True):
        assert tensors[name].format.name == format
        np.testing.assert_array_equal(tensors[name].floats(), tensor.float().numpy())


@pytest.mark.parametrize(
    ("scale", "format"),
    [(2.0**-23, "U4_64"), (2.0**-23 * 1.25, "F32"), (2.0**17, "F32"), (2.0**-14 * 1.75, "U4_64")],
)
def test_scales_that_float16_cannot_hold(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, scale: float, format: str
) -> None:
    """They are not rounded, and it is said what that costs."""
    parts, _ = packed_parts(64, symmetric=True)
    parts["weight_scale"][3, 1] = scale
    index = np.arange(INPUTS) // 64
    expected = formula(
        numbers_of(64)[0] - 8, np.zeros((OUTPUTS, 4)), parts["weight_scale"].double().numpy(), index
    )
    check(weight(tmp_path, parts, compressed(INT4, "pack-quantized")), format, expected)
    assert (f"{NAME}.weight' has scales that float16 cannot hold" in caplog.text) == (format == "F32")


def test_a_large_layer_is_made_a_few_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.models.schemes_grouped.SLAB", INPUTS * 8)
    for parts, expected, config in (
        (*awq_parts(128), AWQ),
        (*gptq_parts(64, draw(1).permutation(np.arange(INPUTS) // 64)), GPTQ),
        (*packed_parts(64, symmetric=False), compressed(INT4 | {"symmetric": False}, "pack-quantized")),
    ):
        np.testing.assert_allclose(weight(tmp_path, parts, config).floats(), expected, rtol=2e-7)


# Bad input


def refusal(folder: Path, parts: Parts, config: dict[str, Any]) -> str:
    with pytest.raises(ModelError) as caught:
        [stored.weight() for stored in opened(folder, parts, config).values()]
    said = str(caught.value)
    assert str(folder) in said
    assert said.splitlines() == [said]
    assert len(said) < 500
    return said


INT4_CONFIG = compressed(INT4, "pack-quantized")


def layers_of(target: Any) -> dict[str, Any]:
    return INT4_CONFIG | {"config_groups": {"group_0": {"targets": [target], "weights": INT4}}}


KINDS: dict[str, tuple[Parts, dict[str, Any]]] = {
    "awq": (awq_parts(128)[0], AWQ),
    "gptq": (gptq_parts(128)[0], GPTQ | {"desc_act": True}),
    "fp8": ({"weight": fp8_codes(), "weight_scale": torch.ones(1)}, TENSOR),
    "int4": (packed_parts(64, symmetric=False)[0], compressed(INT4 | {"symmetric": False}, "pack-quantized")),
}


@pytest.mark.parametrize(
    ("kind", "end"),
    [(kind, end) for kind, (parts, _) in KINDS.items() for end in parts if end != "weight_g_idx"],
)
def test_a_part_is_missing(tmp_path: Path, kind: str, end: str) -> None:
    parts, config = KINDS[kind]
    left = {other: part for other, part in parts.items() if other != end}
    said = refusal(tmp_path, left, config)
    assert f"tensor '{NAME}.{end}' is missing, though '{NAME}." in said


@pytest.mark.parametrize(
    ("kind", "end", "part", "said"),
    [
        ("awq", "qweight", torch.zeros(INPUTS, 2), "is of type F32; it has to be I32"),
        ("awq", "qweight", torch.zeros(INPUTS, dtype=torch.int32), "has shape (256,); it has to be a matrix"),
        ("awq", "scales", torch.ones(2, 17), "has shape (2, 17); its layer implies (2, 16)"),
        ("awq", "scales", torch.ones(3, 16), "has shape (2, 2); its layer implies (3, 2)"),
        ("awq", "qzeros", torch.zeros(2, 3, dtype=torch.int32), "has shape (2, 3); its layer implies (2, 2)"),
        (
            "gptq",
            "qweight",
            torch.zeros(32, 8, dtype=torch.int32),
            "has shape (32, 8); its layer implies (32, 16)",
        ),
        ("gptq", "g_idx", torch.zeros(255, dtype=torch.int32), "has shape (255,); its layer implies (256,)"),
        ("gptq", "g_idx", torch.zeros(256, dtype=torch.int32), "does not put 128 inputs in each of 2 groups"),
        ("gptq", "g_idx", torch.full((256,), 2, dtype=torch.int32), "does not put 128 inputs in each of 2"),
        ("gptq", "g_idx", torch.full((256,), -1, dtype=torch.int32), "does not put 128 inputs in each of 2"),
        ("fp8", "weight", torch.ones(16, 256), "is of type F32; it has to be F8_E4M3"),
        (
            "fp8",
            "weight",
            torch.ones(16, 256).to(torch.float8_e5m2),
            "is of type F8_E5M2; it has to be F8_E4M3",
        ),
        ("fp8", "weight_scale", torch.ones(3), "has shape (3,); it has to be one number, or 16"),
        ("int4", "weight_shape", torch.tensor([16, 255]), "is [16, 255]; 'weight_packed' implies [16, 256]"),
        ("int4", "weight_scale", torch.ones(16, 8), "has groups of 32 inputs; config.json says 64"),
        ("int4", "weight_scale", torch.ones(16), "has shape (16,); its layer implies (16, 16)"),
        ("int4", "weight_scale", torch.ones(15, 4), "has shape (15, 4); its layer implies (16, 4)"),
        ("int4", "weight_scale", torch.ones(16, 3), "has 3 groups for 256 inputs"),
        (
            "int4",
            "weight_scale",
            torch.ones(16, 16),
            "has 16 groups for 256 inputs; groups have to be of a multiple of 32",
        ),
        (
            "int4",
            "weight_zero_point",
            torch.zeros(3, 4, dtype=torch.int32),
            "has shape (3, 4); its layer implies (2, 4)",
        ),
    ],
)
def test_a_part_is_misshapen(tmp_path: Path, kind: str, end: str, part: torch.Tensor, said: str) -> None:
    parts, config = KINDS[kind]
    assert said in refusal(tmp_path, parts | {end: part}, config)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            AWQ | {"version": "gemv"},
            "awq with bits = 4 (quantization_config), with version = 'gemv'; supported is 'gemm'",
        ),
        (AWQ | {"bits": 8}, "with bits = 8; supported is 4"),
        (AWQ | {"zero_point": False}, "with zero_point = False; supported is True"),
        (GPTQ | {"bits": 3}, "with bits = 3; supported is 4"),
        (
            GPTQ | {"checkpoint_format": "marlin"},
            "with checkpoint_format = 'marlin'; supported is 'gptq' or 'gptq_v2'",
        ),
        (TENSOR | {"fmt": "e5m2"}, "with fmt = 'e5m2'; supported is 'e4m3'"),
        (
            TENSOR | {"weight_block_size": [128, 64]},
            "with blocks of [128, 64]; supported are [outputs, inputs]",
        ),
        (TENSOR | {"weight_block_size": "128"}, "with blocks of '128'"),
        (compressed(INT4, "marlin-24"), "with format = 'marlin-24'; supported is 'pack-quantized'"),
        (compressed(INT4 | {"num_bits": 3}, "pack-quantized"), "with weights of type 'int' and 3 bits"),
        (compressed(FLOAT | {"num_bits": 4}, "mixed-precision"), "with weights of type 'float' and 4 bits"),
        (
            compressed(INT4 | {"num_bits": 8}, "int-quantized", {"num_bits": 8, "dynamic": True}),
            "W4A16, W8A16",
        ),
        (INT4_CONFIG | {"sparsity_config": {"format": "sparse-24-bitmask"}}, "dense weights are supported"),
        (INT4_CONFIG | {"transform_config": {"hadamard": 1}}, "none is supported"),
        (INT4_CONFIG | {"config_groups": {}}, "config_groups = {}"),
        (layers_of(3), "with layers 3; names and regular expressions are needed"),
        (layers_of("re:*"), "with layers 're:*'; names and regular expressions are needed"),
        (compressed(INT4 | {"num_bits": 4.0}, "pack-quantized"), "with weights of type 'int' and 4.0 bits"),
        (
            INT4_CONFIG | {"config_groups": {"group_0": {"targets": ["Linear"]}}},
            "'weights' and 'targets' are needed",
        ),
    ],
)
def test_settings_that_are_not_supported(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    assert said in refusal(tmp_path, {}, config)


def test_eight_bits_with_zero_points(tmp_path: Path) -> None:
    parts: Parts = {
        "weight": torch.zeros(16, 256, dtype=torch.int8),
        "weight_scale": torch.ones(16, 1),
        "weight_zero_point": torch.ones(16, 1, dtype=torch.int8),
    }
    config = compressed(INT4 | {"num_bits": 8, "symmetric": False}, "int-quantized")
    assert "shifts codes of 8 bits, which is not supported" in refusal(tmp_path, parts, config)
    parts["weight_zero_point"].zero_()  # as some are stored that shift nothing
    check(weight(tmp_path, parts, config), "Q8_CHANNEL", np.zeros((16, 256)))


def test_a_scheme_by_which_nothing_is_stored(tmp_path: Path) -> None:
    parts = {"weight": torch.ones(16, 256)}
    assert "weights are said to be quantised (quantization_config), but none is" in refusal(
        tmp_path, parts, GPTQ
    )


def test_a_truncated_file(tmp_path: Path) -> None:
    opened(tmp_path, *KINDS["awq"])
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole[:-1])
    with pytest.raises(ModelError, match=rf"{file} is truncated or corrupt"):
        open_weights(tmp_path, {"quantization_config": AWQ})
