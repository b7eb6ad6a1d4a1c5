"""Layers for multi-token prediction (MTP) that checkpoints bring: what they draft, and from which files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head import HeadRunner
from outrider.models.model import Model
from outrider.models.mtp import Mtp, has_mtp, mtp_of
from outrider.ops.span import Span
from tests.models.factories import exact_backend, write_hf
from tests.models.families.table import FAMILIES
from tests.models.mtp_layers import WEIGHTS, WITH_MTP, Written, write_gguf_with_mtp, write_with_mtp

TEXT = [7, 2, 99, 41, 5, 5, 17, 30, 8, 1, 64, 12, 3, 77]  # of which the last three are drafted
READ = 10


@pytest.fixture(scope="module", params=[*WITH_MTP, "tied"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    tied = request.param == "tied"
    return write_with_mtp(tmp_path_factory.mktemp("model"), "qwen3.5" if tied else request.param, tied=tied)


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_with_mtp(tmp_path_factory.mktemp("model"), "qwen3.5")


@pytest.fixture(scope="module")
def glm(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_with_mtp(tmp_path_factory.mktemp("model"), "glm4-moe")


def drafted(path: Path, backend: str, states: NDArray[np.float32], pieces: Sequence[int]) -> torch.Tensor:
    """Logits after the last of the target's states and after each token behind it; the states are given
    before the target's last norm, in such pieces."""
    checkpoint = open_checkpoint(str(path))
    model = Model(checkpoint, exact_backend(backend))
    head = Mtp(mtp_of(checkpoint, "the target"), checkpoint, model.backend, model)
    runner = HeadRunner(head, num_blocks=4, block_size=4, vocab=model.config.vocab_size)
    first, blocks = 0, [2, 0, 3, 1]
    for piece in pieces:
        span = Span(TEXT[first + 1 : first + 1 + piece], first, (blocks,), 1)
        passed = runner.reads([span], states[first : first + piece])
        first += piece
    logits = [passed.logits]
    for token in TEXT[first + 1 :]:
        passed = runner.goes_on([Span([token], first, (blocks,), 1)], passed.kept)
        logits.append(passed.logits)
        first += 1
    return torch.from_numpy(np.concatenate(logits))


def before_norm(written: Written) -> NDArray[np.float32]:
    """What the target's last layer leaves of the text that is read."""
    kept = []
    hook = written.model.model.norm.register_forward_pre_hook(lambda _, told: kept.append(told[0]))
    written.states(TEXT[:READ])
    hook.remove()
    found: NDArray[np.float32] = kept[0][0].detach().numpy()
    return found


def expected(written: Written) -> torch.Tensor:
    states, logits = written.states(TEXT[:READ]), []
    for end in range(READ, len(TEXT)):
        found, own = written.logits(TEXT[1 : end + 1], states)
        logits.append(found[-1])
        states = torch.cat([states, own[-1:]])
    return torch.stack(logits)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("pieces", [(10,), (3, 7), (1,) * 10], ids=str)
def test_logits_are_those_of_a_plain_reading(written: Written, backend: str, pieces: Sequence[int]) -> None:
    found = drafted(written.path, backend, before_norm(written), pieces)
    torch.testing.assert_close(found, expected(written), rtol=1e-4, atol=1e-4)


def test_a_gguf_file_drafts_the_same(written: Written, tmp_path: Path) -> None:
    write_gguf_with_mtp(tmp_path / "m.gguf", written)
    assert has_mtp(open_checkpoint(str(tmp_path / "m.gguf")))
    found = drafted(tmp_path / "m.gguf", "native", before_norm(written), (READ,))
    torch.testing.assert_close(found, expected(written), rtol=1e-4, atol=1e-4)


def test_quantised_as_the_rest(written: Written, tmp_path: Path) -> None:
    """In FP8, with a scale for each output: the same as from the numbers that these mean."""
    numbers, codes, found = {}, {}, list[torch.Tensor]()
    for name, values in written.drafting.items():
        if values.dim() == 2 and not name.endswith("gate.weight"):
            scales = values.abs().amax(1, keepdim=True) / 448
            codes[name] = (values / scales).to(torch.float8_e4m3fn)
            codes[name.replace("weight", "weight_scale")] = scales
            numbers[name] = codes[name].float() * scales
    for scheme, stored in ((None, numbers), ({"quant_method": "fbgemm_fp8"}, codes)):
        path = without(written.path, tmp_path / str(len(found)), *numbers, quantization_config=scheme)
        save_file(load_file(path / WEIGHTS) | stored, path / WEIGHTS, {"format": "pt"})
        found.append(drafted(path, "native", before_norm(written), (READ,)))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fault", ["state", "token"])
def test_a_row_of_another_position_is_noticed(written: Written, fault: str) -> None:
    """What a row reads is the state of its position and the token after it."""
    states = before_norm(written)
    other = np.roll(states, 1, axis=0) if fault == "state" else states
    tokens = TEXT[:READ] if fault == "token" else TEXT[1 : READ + 1]
    normed = written.model.model.norm(torch.from_numpy(other))
    planted, _ = written.logits(tokens, normed)
    sound = drafted(written.path, "native", states, (READ,))
    assert (planted[-1] - sound[0]).abs().max() > 0.01


# What a checkpoint brings


def without(path: Path, into: Path, *names: str, **keys: object) -> Path:
    """A copy of a folder without some tensors. keys: of config.json."""
    into.mkdir()
    for file in path.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    stored = {name: values for name, values in load_file(path / WEIGHTS).items() if name not in names}
    save_file(stored, into / WEIGHTS, {"format": "pt"})
    config = json.loads((into / "config.json").read_text())
    (into / "config.json").write_text(json.dumps(config | keys))
    return into


def test_a_header_says_whether_there_is_one(qwen: Written, tmp_path: Path) -> None:
    assert has_mtp(open_checkpoint(str(qwen.path)))
    write_hf(tmp_path / "plain", FAMILIES[qwen.family].config())
    plain = open_checkpoint(str(tmp_path / "plain"))
    assert not has_mtp(plain)
    with pytest.raises(ModelError, match="'m' brings no layer for multi-token prediction"):
        mtp_of(plain, "m")
    for key, value in (("mtp_use_dedicated_embeddings", True), ("mtp_num_hidden_layers", 0)):
        assert not has_mtp(open_checkpoint(str(without(qwen.path, tmp_path / key, **{key: value}))))


def test_a_tensor_that_is_missing_is_named_when_it_is_asked_for(qwen: Written, tmp_path: Path) -> None:
    """The model itself needs none of them."""
    lacking = open_checkpoint(str(without(qwen.path, tmp_path / "m", "mtp.layers.0.self_attn.q_norm.weight")))
    Model(lacking, exact_backend("torch"))
    with pytest.raises(ModelError, match=r"tensor 'mtp\.layers\.0\.self_attn\.q_norm\.weight' is missing"):
        mtp_of(lacking, "m")


def test_more_layers_than_are_used_are_left_out(
    qwen: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = without(qwen.path, tmp_path / "m")
    more = {f"mtp.layers.1.{name}": torch.ones(4) for name in ("input_layernorm.weight", "other.weight")}
    save_file(load_file(path / WEIGHTS) | more, path / WEIGHTS, {"format": "pt"})
    assert has_mtp(open_checkpoint(str(path)))
    assert "2 tensors of layers that predict further tokens (MTP) are left out" in caplog.text


def test_names_within_the_model(qwen: Written, tmp_path: Path) -> None:
    path = without(qwen.path, tmp_path / "m", *qwen.drafting)
    within = {f"model.{name}": values for name, values in qwen.drafting.items()}
    save_file(load_file(path / WEIGHTS) | within, path / WEIGHTS, {"format": "pt"})
    found = drafted(path, "native", before_norm(qwen), (READ,))
    torch.testing.assert_close(found, expected(qwen), rtol=1e-4, atol=1e-4)


def test_copies_of_the_models_own_are_passed_over(
    glm: Written, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """GLM's files hold the table and the output layer once more."""
    path, begins = without(glm.path, tmp_path / "m"), f"model.layers.{glm.model.config.num_hidden_layers}."
    copies = {f"{begins}embed_tokens.weight": glm.model.model.embed_tokens.weight.detach().clone()}
    copies[f"{begins}shared_head.head.weight"] = glm.model.lm_head.weight.detach().clone()
    save_file(load_file(path / WEIGHTS) | copies, path / WEIGHTS, {"format": "pt"})
    found = drafted(path, "native", before_norm(glm), (READ,))
    torch.testing.assert_close(found, expected(glm), rtol=1e-4, atol=1e-4)
    assert "2 tensors of layers that predict further tokens (MTP) are left out" in caplog.text


def test_layers_behind_a_model_have_to_be_said(glm: Written, tmp_path: Path) -> None:
    path = without(glm.path, tmp_path / "m", num_nextn_predict_layers=0)
    with pytest.raises(ModelError, match="has tensors that are not read"):
        open_checkpoint(str(path))
