"""The backend that a configuration means, what is said of it, and what is refused."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file, save_file

from outrider.config import resolve
from outrider.engine import backend
from outrider.engine.backend import choose_backend
from outrider.errors import ConfigError
from outrider.formats.weight import Weight
from outrider.models.checkpoint import Checkpoint, open_checkpoint
from outrider.ops.base import Backend
from outrider.ops.cpu import extension
from tests.engine.helpers import load
from tests.models.factories import tiny_config, write_gguf, write_hf

INSTRUCTION_SETS: list[str] = extension.require().instruction_sets()
SMALL = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as float32, float16, bfloat16 and Q8_0."""
    path = tmp_path_factory.mktemp("saved")
    model = write_hf(path / "F32", tiny_config(**SMALL))
    for name, dtype in (("F16", torch.float16), ("BF16", torch.bfloat16)):
        write_hf(path / name, tiny_config(**SMALL))
        file = path / name / "model.safetensors"
        tensors = {key: tensor.to(dtype) for key, tensor in load_file(file).items()}
        file.unlink()  # it may be mapped
        save_file(tensors, file, metadata={"format": "pt"})
    write_gguf(path / "Q8_0.gguf", model, None, GGMLQuantizationType.Q8_0)
    write_gguf(path / "F16.gguf", model, None, GGMLQuantizationType.F16)
    return path


def opened(saved: Path, name: str) -> Checkpoint:
    return open_checkpoint(str(saved / name))


def chosen(saved: Path, name: str, **options: Any) -> Backend:
    config = resolve(str(saved / name), **{"device": "cpu", **options})
    return choose_backend(config, opened(saved, name))


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0.gguf", "F16.gguf"])
def test_stored_type(saved: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known without reading a tensor."""
    checkpoint = opened(saved, name)
    monkeypatch.setattr(Weight, "dequantize", lambda self: pytest.fail("a tensor was read"))
    assert checkpoint.stored_as == name.removesuffix(".gguf")


@pytest.mark.parametrize(
    ("name", "options", "dtype"),
    [
        ("F32", {}, "float32"),
        ("F16", {}, "float32"),
        ("BF16", {}, "bfloat16"),
        ("Q8_0.gguf", {}, "bfloat16"),
        ("F32", {"quantization": "int8"}, "bfloat16"),
        ("F32", {"kv_cache_dtype": "bfloat16"}, "bfloat16"),
        ("F32", {"kv_cache_dtype": "int8"}, "int8"),
        ("F32", {"kv_cache_dtype": "int8", "backend": "torch"}, "int8"),
        ("BF16", {"dtype": "float32"}, "float32"),
        ("BF16", {"backend": "torch"}, "float32"),
        ("F32", {"dtype": "float16"}, "float16"),
        ("F32", {"dtype": "float64"}, "float64"),
    ],
)
def test_cache_dtype(saved: Path, name: str, options: dict[str, Any], dtype: str) -> None:
    facts = chosen(saved, name, **options).facts
    assert facts.cache_dtype == dtype
    assert facts.cache_bytes == getattr(torch, dtype).itemsize


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("F16", {}, None),
        ("F16.gguf", {}, None),
        ("F16", {"dtype": "bfloat16"}, None),
        ("F16", {"dtype": "float32"}, None),
        ("F16", {"quantization": "int8"}, None),
        ("BF16", {}, None),
        ("Q8_0.gguf", {}, None),
        ("Q8_0.gguf", {"quantization": "int4"}, "type Q8_0 are quantised a second time, to int4"),
        ("Q8_0.gguf", {"quantization": "int8"}, "type Q8_0 are quantised a second time, to int8"),
        ("F32", {"dtype": "float16"}, "dtype = 'float16' is not for the native CPU kernels, so PyTorch"),
        ("F32", {"dtype": "float64"}, "dtype = 'float64' is not for the native CPU kernels, so PyTorch"),
        ("F32", {"dtype": "float64", "backend": "torch"}, None),
        ("F32", {"enforce_eager": True}, "enforce_eager = True has no effect: "),
        ("F32", {"enforce_eager": True, "backend": "torch"}, "enforce_eager = True has no effect: "),
        ("F32", {"enforce_eager": True, "backend": "triton"}, None),
    ],
)
def test_what_is_said_once(
    saved: Path, name: str, options: dict[str, Any], said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "outrider"):
        chosen(saved, name, **options)
    assert len(caplog.messages) == (said is not None)
    assert said is None or said in caplog.text


@pytest.mark.parametrize("on_pytorch", [{"backend": "torch"}, {"dtype": "float64"}])
@pytest.mark.parametrize(("name", "value"), [("num_threads", 2), ("instruction_set", "portable")])
def test_options_of_the_kernels_are_refused_on_pytorch(
    saved: Path, on_pytorch: dict[str, Any], name: str, value: Any
) -> None:
    with pytest.raises(ConfigError, match=f"{name} = {value!r} is for the native CPU kernels"):
        chosen(saved, "F32", **on_pytorch, **{name: value})


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_an_engine_says_what_computes(target: str, instruction_set: str) -> None:
    native = load(target, instruction_set=instruction_set, num_threads=2).engine.facts
    assert (native.kernels, native.device, native.exact) == (instruction_set, "cpu", True)
    assert native.threads == 2
    torch_facts = load(target, backend="torch").engine.facts
    assert (torch_facts.kernels, torch_facts.device, torch_facts.exact) == (None, "cpu", False)


@pytest.fixture
def no_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)


@pytest.mark.usefixtures("no_pytorch")
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"backend": "torch"}, "backend = 'torch'"),
        ({"dtype": "float16"}, "dtype = 'float16'"),
        ({"dtype": "float64"}, "dtype = 'float64'"),
        ({"device": "cuda"}, "device = 'cuda'"),
        ({"device": "cuda:1", "backend": "torch"}, "device = 'cuda:1'"),
    ],
)
def test_without_pytorch(saved: Path, options: dict[str, Any], what: str) -> None:
    said = (
        f"{what} needs the package 'torch', which is not installed; it comes with the extra 'torch': pip "
        "install 'outrider[torch]' --extra-index-url https://download.pytorch.org/whl/cpu "
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        chosen(saved, "F32", **options)


@pytest.mark.usefixtures("no_pytorch")
def test_without_pytorch_and_without_the_kernels(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways out are said."""
    monkeypatch.setattr(extension, "native", None)
    with pytest.raises(ConfigError, match=r"cannot be loaded .*--no-deps \.; or .* 'outrider\[torch\]'"):
        chosen(saved, "F32")


@pytest.mark.parametrize("gpu", [False, True])
def test_pytorch_is_not_imported_to_find_no_gpu(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where the system shows one is PyTorch asked, which may not know it."""
    asked = []
    monkeypatch.setattr(backend, "GPUS", ("/dev/null",) if gpu else ("/dev/none",))
    monkeypatch.setattr(backend, "which", lambda name: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(True))
    assert backend.choose_device("auto") == backend.choose_device("cpu") == "cpu"
    assert bool(asked) == gpu


@pytest.mark.usefixtures("no_pytorch")
def test_a_gpu_is_of_no_use_without_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "GPUS", ("/dev/null",))
    assert backend.choose_device("auto") == "cpu"


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there(saved: Path, device: str) -> None:
    with pytest.raises(ConfigError, match=f"device = '{device}' cannot be used: .*; try 'cpu'"):
        chosen(saved, "F32", device=device)
