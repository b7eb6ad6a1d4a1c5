"""Models that read images too are read as their text part, whatever their tensors' names begin with."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from outrider.errors import ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from outrider.ops.torch import TorchBackend
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES

EYES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 8,
}
WHOLES = {
    "gemma3": ("Gemma3", "siglip_vision_model", {}),
    "gemma4-small": (
        "Gemma4",
        "gemma4_vision",
        {"head_dim": 8, "num_key_value_heads": 2, "position_embedding_size": 32},
    ),
    "mistral": ("Mistral3", "pixtral", {"head_dim": 8}),
    "ministral3": ("Mistral3", "pixtral", {"head_dim": 8}),
    "qwen3.5": ("Qwen3_5", "qwen3_5_vision", {"depth": 1, "num_heads": 2, "out_hidden_size": 48}),
    "qwen3.5-moe": ("Qwen3_5Moe", "qwen3_5_moe_vision", {"depth": 1, "num_heads": 2, "out_hidden_size": 48}),
    "lfm2": ("Lfm2Vl", "siglip2_vision_model", {"num_patches": 4}),
}
"""By the name of the text part: the whole model, and what it reads images with."""
LENGTH = 40


def whole(text: str) -> Any:
    name, eyes, more = WHOLES[text]
    config = FAMILIES[text].config()
    config.final_logit_softcapping = None  # of which the whole model takes no notice
    config.pad_token_id = 0  # which stands for images while Gemma 4 looks tokens up
    return getattr(transformers, f"{name}Config")(
        text_config=config.to_dict(),
        vision_config={"model_type": eyes, **EYES, **more},
        architectures=[f"{name}ForConditionalGeneration"],
        tie_word_embeddings=config.tie_word_embeddings,
        eos_token_id=[1, 2],
    )


def write(path: Path, text: str) -> Any:
    name = WHOLES[text][0]
    return write_hf(path, whole(text), auto_class=getattr(transformers, f"{name}ForConditionalGeneration"))


def renamed(path: Path, old: str, new: str) -> None:
    file = path / "model.safetensors"
    tensors = {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor.clone()
        for name, tensor in load_file(file).items()
    }
    file.unlink()
    save_file(tensors, file, {"format": "pt"})


def edit(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("newer", [False, True], ids=["language_model.model.", "model.language_model."])
@pytest.mark.parametrize("text", WHOLES)
def test_logits_are_those_of_the_whole_model(
    tmp_path: Path, text: str, newer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    reference = write(tmp_path, text)
    if newer:
        renamed(tmp_path, "language_model.model.", "model.language_model.")
        renamed(tmp_path, "language_model.lm_head.", "lm_head.")
        renamed(tmp_path, "vision_tower.", "model.vision_tower.")
        renamed(tmp_path, "multi_modal_projector.", "model.multi_modal_projector.")
    checkpoint = open_checkpoint(str(tmp_path))
    assert not [record for record in caplog.records if record.name.startswith("outrider")]
    assert checkpoint.config.eos_token_ids == (1, 2)
    model = Model(checkpoint, TorchBackend("cpu", "float32"))
    runner = ModelRunner(model, num_blocks=LENGTH // 8, block_size=8, prefix_caching=False)
    tokens = random.Random(1).sample(range(11, model.config.vocab_size), LENGTH)  # 10 is an image
    actual = runner.forward([Span(tokens, 0, (range(LENGTH // 8),) * len(runner.pool.of_groups), LENGTH)])
    with torch.inference_mode():
        expected = reference(torch.tensor([tokens])).logits[0].numpy()
    error = np.abs(actual - expected).max(axis=1) / np.abs(expected).max(axis=1)
    assert error.max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text_config": None}, "text_config = None; it has to be an object"),
        ({"model_type": "llama"}, "'Gemma3ForConditionalGeneration' and model_type 'llama'"),
        ({"text_config": {"model_type": "bert"}}, "model_type 'bert' is not supported"),
        ({"architectures": ["NoSuchForConditionalGeneration"]}, "'NoSuchForConditionalGeneration' is not"),
    ],
    ids=str,
)
def test_what_is_no_such_model(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    write(tmp_path, "gemma3")
    edit(tmp_path, **changes)
    with pytest.raises(ModelError) as caught:
        open_checkpoint(str(tmp_path))
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value)


def test_a_tensor_of_another_part_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path, "gemma3")
    renamed(tmp_path, "vision_tower.", "thinking_tower.")
    with pytest.raises(ModelError, match=r"tensors that are not read, .*'thinking_tower\."):
        open_checkpoint(str(tmp_path))
