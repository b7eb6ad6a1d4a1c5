"""Draft lengths by batch size, as vLLM reads them."""

from __future__ import annotations

import json
import shlex

import pytest

from outrider.cluster.vllm.schedule import schedule_of, serve_command


@pytest.mark.parametrize(
    ("best", "expected"),
    [
        ({1: 5}, [(1, 1, 5)]),
        ({1: 5, 4: 3, 16: 0}, [(1, 3, 5), (4, 15, 3), (16, 16, 0)]),
        ({4: 3, 8: 1}, [(1, 7, 3), (8, 8, 1)]),
        ({1: 3, 4: 3, 16: 1}, [(1, 15, 3), (16, 16, 1)]),
    ],
)
def test_each_length_counts_up_to_the_next_batch_size(
    best: dict[int, int], expected: list[tuple[int, int, int]]
) -> None:
    assert schedule_of(best) == expected


def test_vllm_reads_it_so() -> None:
    dynamic = pytest.importorskip("vllm.v1.spec_decode.dynamic.utils", reason="vLLM is not installed")
    lengths = dynamic.build_dynamic_sd_schedule_lookup(schedule_of({1: 5, 4: 3, 16: 0}), 20, 5)
    assert lengths[1:] == [5] * 3 + [3] * 12 + [0] * 5


DRAFTING = {"method": "eagle3", "model": "a head", "num_speculative_tokens": 2}


def test_the_command_has_the_options_and_the_table() -> None:
    options = {
        "max_model_len": 2048,
        "dtype": "float32",
        "enforce_eager": True,
        "enable_prefix_caching": False,
    }
    words = shlex.split(serve_command("org/target", options, DRAFTING, [(1, 3, 5), (4, 4, 1)]))
    assert words[:3] == ["vllm", "serve", "org/target"]
    assert words[3:-2] == [
        "--max-model-len", "2048", "--dtype", "float32", "--enforce-eager", "--no-enable-prefix-caching",
    ]  # fmt: skip
    assert words[-2] == "--speculative-config"
    assert json.loads(words[-1]) == {
        "method": "eagle3",
        "model": "a head",
        "num_speculative_tokens": 5,
        "num_speculative_tokens_per_batch_size": [[1, 3, 5], [4, 4, 1]],
    }


def test_one_length_needs_no_table_and_none_no_speculation() -> None:
    one = json.loads(shlex.split(serve_command("m", {}, DRAFTING, [(1, 4, 3)]))[-1])
    assert one == {**DRAFTING, "num_speculative_tokens": 3}
    assert serve_command("m", {}, DRAFTING, [(1, 4, 0)]) == "vllm serve m"
