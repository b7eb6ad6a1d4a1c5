"""What `LLM(engine="vllm")` may be given."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from outrider.cli.vllm_flags import read
from outrider.cluster.config import ClusterConfig
from outrider.cluster.vllm.config import VllmConfig, resolve_vllm
from outrider.cluster.vllm.text import read_text
from outrider.config import OWN
from outrider.errors import ConfigError, ModelError


def test_options_of_either_kind() -> None:
    """The call of vLLM's older releases; what neither we nor our own class know stays by its name."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = resolve_vllm(
            "org/llama-70b",
            speculative_model="org/llama-1b",
            num_speculative_tokens=5,
            use_v2_block_manager=True,
            tensor_parallel_size=8,
            pipeline_parallel_size=2,
            distributed_executor_backend="ray",
            kv_cache_memory_bytes="1GiB",
        )
    assert (config.tensor_parallel_size, config.pipeline_parallel_size) == (8, 2)
    assert config.distributed_executor_backend == "ray"
    assert config.kv_cache_memory == 2**30
    assert config.drafters == ("org/llama-1b",)
    assert config.others == {"use_v2_block_manager": True}


@pytest.mark.parametrize("name", [None, "none", ["none"]])
def test_nothing_drafts(name: Any) -> None:
    assert resolve_vllm("m", speculative_model=name).drafters == ()


def test_vllms_own_form_goes_through() -> None:
    own = {"method": "eagle3", "model": "head", "num_speculative_tokens": 2}
    config = resolve_vllm("m", speculative_config=own)
    assert (config.speculative_config, config.drafters) == (own, ("head",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cpu"}, "^LLM.engine='vllm'. cannot do device = 'cpu'"),
        ({"memory_limit": "1GiB"}, "memory_limit = '1GiB': give gpu_memory_utilization"),
        ({"pooling": "mean"}, "embed with engine='outrider'"),
        (
            {"speculative_model": "auto", "num_speculative_tokens": 2},
            "'auto': drafters are found for",
        ),
        ({"speculative_model": ["a", "b"], "num_speculative_tokens": 2}, "vLLM drafts with one drafter"),
        ({"speculative_model": "ngram"}, "without num_speculative_tokens"),
        (
            {"speculative_model": "a", "num_speculative_tokens": "auto"},
            "equally many tokens for all",
        ),
        ({"num_speculative_tokens": 2}, "^num_speculative_tokens given without speculative_model"),
        ({"speculative_config": {}, "speculative_model": "a", "num_speculative_tokens": 1}, "are both given"),
        ({"acceptance": "block"}, "rejection sampling, which is 'standard'"),
        ({"tensor_parallel_size": 0}, "^tensor_parallel_size = 0: "),
    ],
)
def test_what_is_refused_before_vllm_is_imported(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolve_vllm("m", **options)


@pytest.mark.parametrize("model", ["smollm2", "folder/model.Q4_K_M.gguf"])
def test_vllm_reads_no_gguf(model: str) -> None:
    with pytest.raises(ConfigError, match="vLLM reads no GGUF file; give the folder"):
        resolve_vllm(model)


def test_each_option_of_ours_is_vllms_or_has_a_rule() -> None:
    """None would reach vLLM as an option of its own."""
    from outrider.cluster.vllm.config import NOT_VLLMS

    known = {*VllmConfig.model_fields, *NOT_VLLMS}
    assert known >= OWN


def test_the_text_part_of_a_model(target: str, tmp_path: Path) -> None:
    """Its layers are not looked at: any family that vLLM knows will do."""
    config = resolve_vllm(target, override_generation_config={"temperature": 0.3})
    text = read_text(config)
    assert text.ends == (2,)
    assert text.defaults == {"temperature": 0.3}
    with pytest.raises(ModelError, match=r"holds no config.json"):
        read_text(resolve_vllm(str(tmp_path)))


def test_a_command_line_of_vllm_serve() -> None:
    """With that engine its options are given to it, and only those of the server are ours."""
    line = ["m", "--engine", "vllm", "-tp", "8", "--enforce-eager", "--no-enable-chunked-prefill"]
    kept, ignored = read([*line, "--hf-overrides", '{"a": 1}', "--disable-uvicorn-access-log"], {"--engine"})
    assert ignored == ["--disable-uvicorn-access-log"]
    assert kept == [
        "m", "--engine", "vllm", "--set", "tensor_parallel_size=8", "--set", "enforce_eager=True",
        "--set", "enable_chunked_prefill=false", "--set", 'hf_overrides={"a": 1}',
    ]  # fmt: skip


def test_replicas_are_our_engines() -> None:
    with pytest.raises(ConfigError, match="vLLM spreads a model by itself"):
        ClusterConfig(model="m", options={"engine": "vllm"})
