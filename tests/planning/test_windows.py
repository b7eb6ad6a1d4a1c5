"""Plans for models whose layers have a window, against the engines that are built by them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError
from outrider.models.checkpoint import open_checkpoint
from tests.engine.test_windows import mistral
from tests.models.factories import write_hf
from tests.models.head_features import FEATURES
from tests.planning.test_limit import plan

SIZE: dict[str, Any] = {"num_speculative_tokens": 3, "max_num_seqs": 2, "prompt_chunk_size": 8}


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A model with a window of 12, and a head for it with one of 5."""
    target, head = (tmp_path_factory.mktemp(name) for name in ("windowed", "head"))
    write_hf(target, mistral())
    FEATURES["sliding_window"](Path(head), open_checkpoint(str(target)).config)
    return {"TARGET": str(target), "HEAD": str(head), "ngram": "ngram"}


@pytest.mark.parametrize("length", [100, None])
@pytest.mark.parametrize("drafter", ["ngram", "TARGET", "HEAD", "self:int4"])
def test_the_engine_has_the_blocks_of_the_plan(
    windowed: dict[str, str], drafter: str, length: int | None
) -> None:
    target = windowed["TARGET"]
    options = SIZE | {"speculative_model": windowed.get(drafter, drafter), "max_model_len": length}
    for memory in ({}, {"limit": plan(target, **options).least + 2**14}):
        found = plan(target, *memory.values(), **options)
        assert found.fits
        llm = LLM(target, device="cpu", kv_cache_memory=found.kv_cache_memory, **options)
        assert llm.engine.max_model_len == found.context == (length or 256)
        assert llm.engine.target.pool.num_blocks == found.num_blocks[0]


def test_a_long_text_takes_the_bytes_of_its_window(windowed: dict[str, str]) -> None:
    """11 positions that the next row sees before itself, 8 of a chunk, and 3 of a draft: 22, in 3 blocks of
    16 at most. What is kept for the text itself grows with it."""
    short, long = (plan(windowed["TARGET"], max_model_len=n, **drafting("ngram")) for n in (48, 240))
    (size, texts) = long.caches.sizes
    assert long.least_cache == 3 * size.block_bytes + 15 * texts.block_bytes
    assert long.least_cache - short.least_cache == 12 * texts.block_bytes
    assert long.num_blocks == (2 * 3, 2 * 15)
    assert long.concurrency == 2
    assert long.positions == 2 * 240


def drafting(name: str) -> dict[str, Any]:
    return SIZE | {"speculative_model": name}


def test_less_than_a_window_is_refused(windowed: dict[str, str]) -> None:
    """Also where the plan has more memory than the option of the cache's gives it."""
    target = windowed["TARGET"]
    needed = plan(target, max_model_len=240, max_num_seqs=1, prompt_chunk_size=8).kv_cache_memory
    told: dict[str, Any] = {"max_model_len": 240, "max_num_seqs": 1, "prompt_chunk_size": 8, "device": "cpu"}
    assert LLM(target, kv_cache_memory=needed, memory_limit="3GiB", **told).engine.max_model_len == 240
    with pytest.raises(ConfigError, match=f"max_model_len = 240 needs kv_cache_memory of {needed} bytes"):
        LLM(target, kv_cache_memory=needed - 1, memory_limit="3GiB", **told)
