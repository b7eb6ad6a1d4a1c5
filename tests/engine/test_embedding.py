"""Embeddings, against the mean and the last of transformers' hidden states in float64."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from outrider import ConfigError, ModelError, RequestError
from outrider.cache.pool import OutOfBlocks
from outrider.engine.embedding import CacheInUse
from outrider.models.checkpoint import open_checkpoint
from tests.engine.helpers import load
from tests.factories import tiny_tokenizer, write_model
from tests.models.factories import write_gguf

TEXTS: list[list[int]] = [[40], [*range(5, 95)], [*range(20, 45)] * 8]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("embedding")
    return folder, write_model(folder).double()


def expected(model: Any, tokens: list[int], pooling: str) -> Any:
    with torch.no_grad():
        states = model.model(torch.tensor([tokens])).last_hidden_state[0].numpy()
    pooled = states.mean(axis=0) if pooling == "mean" else states[-1]
    return pooled / np.linalg.norm(pooled)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_embeddings(model: tuple[Path, Any], pooling: str, backend: str) -> None:
    """Of texts of one pass and of several; prompts that were generated from are no matter."""
    folder, reference = model
    llm = load(str(folder), pooling=pooling, backend=backend, prompt_chunk_size=64)
    llm.generate([TEXTS[1]], use_tqdm=False)
    outputs = llm.embed(TEXTS)
    for tokens, output in zip(TEXTS, outputs, strict=True):
        assert output.prompt_token_ids == tuple(tokens)
        wanted = expected(reference, tokens, pooling)
        np.testing.assert_allclose(output.outputs.embedding, wanted, rtol=0, atol=2e-5)
        assert abs(np.linalg.norm(output.outputs.embedding) - 1) < 1e-6
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks
    (text,) = llm.embed("the end")
    assert text.prompt_token_ids == tuple(llm.tokenizer.encode("the end"))


def test_a_model_that_is_not_meant_for_it(model: tuple[Path, Any]) -> None:
    with pytest.raises(ConfigError, match=r"the model is not meant for embeddings; .*\(--pooling\)"):
        load(str(model[0])).embed("x")


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode_cls_token": True}, None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
        ({"pooling_mode": ["mean"]}, None),
        ({}, None),
    ],
)
def test_what_sentence_transformers_says(
    settings: dict[str, Any], pooling: str | None, tmp_path: Path
) -> None:
    write_model(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert open_checkpoint(str(tmp_path)).pooling is None
    (tmp_path / "modules.json").write_text("[]")
    assert open_checkpoint(str(tmp_path)).pooling == pooling
    (tmp_path / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not valid JSON"):
        open_checkpoint(str(tmp_path))


@pytest.mark.parametrize(("kind", "pooling"), [(1, "mean"), (3, "last"), (2, None), (0, None)])
def test_what_gguf_says(kind: int, pooling: str | None, model: tuple[Path, Any], tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    write_gguf(file, write_model(tmp_path), tiny_tokenizer(), metadata={"llama.pooling_type": kind})
    assert open_checkpoint(str(file)).pooling == pooling


def test_texts_that_cannot_be_embedded(model: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    llm = load(str(model[0]), pooling="last", max_model_len=64)
    for tokens, reason in (
        ([[]], "is empty"),
        ([[10**6]], "not in the vocabulary"),
        ([[5] * 64], "64 tokens"),
    ):
        with pytest.raises(RequestError, match=reason):
            llm.embed(tokens)

    def full(*_: Any) -> None:
        raise OutOfBlocks

    table = llm.engine.target.table()
    monkeypatch.setattr(type(table), "extend", full)
    with pytest.raises(CacheInUse):
        llm.embed([[5]])
