"""Peak memory of models of several families against their plans; `benchmarks.plans` has all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.memory import PEAK_RESET
from benchmarks.plans import measure
from benchmarks.wide_models import write_family, write_tiny


@pytest.mark.skipif(not PEAK_RESET.exists(), reason="VmHWM is Linux's")
@pytest.mark.parametrize(("family", "options"), [("gemma3", "int4"), ("qwen3-moe", "as stored")])
def test_peak_is_within_a_tenth_of_the_plan(tmp_path: Path, family: str, options: str) -> None:
    """A tied model whose layers have windows, and a mixture; Python and libraries do not count."""
    tiny = write_tiny(tmp_path / "tiny")
    measured = measure(family, write_family(tmp_path, family), tiny, options, max_num_seqs=2)
    assert measured.cache > 0.05 * measured.planned
    assert 0.9 < measured.ratio < 1.1
