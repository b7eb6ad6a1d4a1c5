"""Peak memory of fresh processes on a real model, against the plan; `benchmarks.memory` has all formats."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.memory import OUTPUT, PEAK_RESET, Case, measure
from outrider.models.checkpoint import locate

SIZE = {"max_model_len": OUTPUT + 160, "max_num_seqs": 2}
linux = pytest.mark.skipif(not PEAK_RESET.exists(), reason="VmHWM is Linux's")


@linux
@pytest.mark.parametrize(
    ("format", "drafter"),
    [
        ({}, {}),
        ({"dtype": "bfloat16"}, {}),
        ({"quantization": "int4"}, {"speculative_model": "suffix", "suffix_memory": 0}),
        ({}, {"speculative_model": "head", "num_speculative_tokens": 4}),
        # By its path it is another model than the target, and is loaded for itself.
        ({"quantization": "int8"}, {"speculative_model": "PATH", "num_speculative_tokens": 4}),
    ],
)
def test_peak_is_within_a_tenth_of_the_plan(format: dict[str, Any], drafter: dict[str, Any]) -> None:
    if drafter.get("speculative_model") == "PATH":
        drafter = drafter | {"speculative_model": str(locate("smollm2"))}
    measured = measure(Case("", "", "smollm2", {**format, **drafter, **SIZE}))
    assert 0.9 < measured.ratio < 1.1


@linux
def test_a_limit_is_kept() -> None:
    """By a process whose cache takes what the limit leaves, and is full. The limit is a little more than the
    plan: what Python and the libraries take differs by machine."""
    options = {"speculative_model": ["suffix", "head"], "max_num_seqs": 1, "max_model_len": 1000}
    options["suffix_memory"] = 0  # which so few requests would not fill
    limit = round(1.03 * measure(Case("", "", "smollm2", options)).planned)
    measured = measure(Case("", "", "smollm2", {**options, "memory_limit": limit}))
    assert 0.9 * limit < measured.peak <= limit
