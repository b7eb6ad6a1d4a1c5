"""What a layer for multi-token prediction (MTP) is planned to take, against what loading packs and caches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM
from outrider.ops.cpu.backend import NativeBackend
from tests.models.mtp_layers import write_gguf_with_mtp, write_with_mtp
from tests.planning.test_limit import plan

SIZE: dict[str, Any] = {
    "speculative_model": "mtp",
    "num_speculative_tokens": 3,
    "max_num_seqs": 2,
    "max_model_len": 100,
}


@pytest.mark.parametrize("family", ["qwen3.5", "qwen3-next"])
@pytest.mark.parametrize(
    "options",
    [{}, {"quantization": "int8"}, {"draft_quantization": "int4"}, {"dtype": "bfloat16"}, {"gguf": True}],
    ids=str,
)
def test_bytes_are_those_that_are_packed_and_cached(
    tmp_path: Path, family: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    pack: Callable[..., Any] = NativeBackend._pack

    def counted(self: NativeBackend, *args: Any) -> Any:
        sizes.append((matrix := pack(self, *args)).nbytes)
        return matrix

    monkeypatch.setattr(NativeBackend, "_pack", counted)
    written = write_with_mtp(tmp_path / "m", family)
    target = str(tmp_path / "m")
    if options.get("gguf"):
        options, target = {}, str(tmp_path / "m.gguf")
        write_gguf_with_mtp(Path(target), written)
    found = plan(target, **SIZE, **options)
    llm = LLM(target, device="cpu", kv_cache_memory=found.kv_cache_memory, **SIZE, **options)
    assert found.drafts > 0
    assert sum(sizes) == found.target + found.drafts
    assert llm.engine.target.pool.of_groups[0].num_blocks == found.blocks
