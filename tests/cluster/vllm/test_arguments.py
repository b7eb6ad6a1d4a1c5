"""What vLLM is given for the options of `LLM(engine="vllm")`."""

from __future__ import annotations

import sys
from dataclasses import make_dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from outrider.cluster.vllm.arguments import engine_arguments
from outrider.cluster.vllm.config import resolve_vllm
from outrider.cluster.vllm.exported import exported
from outrider.errors import ConfigError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint, locate_head
from tests.models.head_features import random_head

WITHOUT_VLLM = ("model", "enforce_eager", "async_scheduling", "enable_dbo", "max_num_seqs")


@pytest.fixture(autouse=True)
def _arguments_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where vLLM is not installed, the names of a few of its arguments."""
    if find_spec("vllm") is None:
        module: Any = ModuleType("vllm.engine.arg_utils")
        module.EngineArgs = make_dataclass("EngineArgs", WITHOUT_VLLM)
        for name in ("vllm", "vllm.engine"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, "vllm.engine.arg_utils", module)


def arguments(**options: Any) -> dict[str, Any]:
    return engine_arguments(resolve_vllm("org/target", **options))


def drafting(**options: Any) -> Any:
    return arguments(**options)["speculative_config"]


def test_options_go_by_vllms_names() -> None:
    given = arguments(
        max_model_len=64, kv_cache_memory="1GiB", tensor_parallel_size=2, dtype="bfloat16", enforce_eager=True
    )
    assert given["model"] == "org/target"
    assert given["kv_cache_memory_bytes"] == 2**30
    assert (given["max_model_len"], given["tensor_parallel_size"], given["dtype"]) == (64, 2, "bfloat16")
    assert given["enforce_eager"] is True
    assert "speculative_config" not in given
    assert not given.keys() & {"engine", "chat_template", "others", "kv_cache_memory"}


def test_an_option_that_vllm_has_not_is_refused_with_the_nearest_that_it_has() -> None:
    with pytest.raises(ConfigError, match="'enforce_eagre'; did you mean 'enforce_eager'"):
        arguments(enforce_eagre=True)


def test_an_older_option_that_changes_no_answer_is_taken() -> None:
    with pytest.warns(UserWarning, match="use_v2_block_manager"):
        given = arguments(speculative_model="ngram", num_speculative_tokens=5, use_v2_block_manager=True)
    assert given["speculative_config"] == {"method": "ngram", "num_speculative_tokens": 5}
    assert "use_v2_block_manager" not in given


def test_drafters_that_are_no_models() -> None:
    assert drafting(
        speculative_model="[ngram]", num_speculative_tokens=3, ngram_prompt_lookup_max=4, prompt_lookup_min=2
    ) == {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 4, "prompt_lookup_min": 2}
    assert drafting(speculative_model="mtp", num_speculative_tokens=1) == {
        "method": "mtp",
        "num_speculative_tokens": 1,
    }


@pytest.mark.skipif(find_spec("arctic_inference") is not None, reason="it is installed")
def test_suffix_names_the_package_that_it_needs() -> None:
    with pytest.raises(ConfigError, match="pip install arctic-inference"):
        drafting(speculative_model="suffix", num_speculative_tokens=8)


def test_vllms_own_form_goes_to_vllm_as_it_is() -> None:
    given = {"method": "medusa", "model": "org/medusa", "num_speculative_tokens": 4, "quantization": "fp8"}
    assert drafting(speculative_config=given) == given


@pytest.mark.parametrize(
    "options",
    [
        {"speculative_model": "head", "num_speculative_tokens": 3},
        {"speculative_config": {"method": "head", "model": "head", "num_speculative_tokens": 3}},
        {"speculative_config": {"method": "eagle3", "model": "head", "num_speculative_tokens": 3}},
    ],
)
def test_the_head_of_this_package_is_exported(options: dict[str, Any]) -> None:
    given = drafting(**options)
    assert (given["method"], given["num_speculative_tokens"]) == ("eagle3", 3)
    head = HeadCheckpoint(Path(given["model"]))
    assert not head.quantized
    assert head.config == HeadCheckpoint(locate_head("head")).config


def test_a_head_is_exported_once(tmp_path: Path) -> None:
    head = HeadCheckpoint(locate_head("head"))
    folder = exported(head, tmp_path)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    assert exported(head, tmp_path) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert [path.name for path in (tmp_path / "exported-heads").iterdir()] == [folder.name]


def test_a_head_of_floats_is_read_where_it_is(target: str, tmp_path: Path) -> None:
    random_head(tmp_path, open_checkpoint(target).config)
    given = drafting(speculative_model=str(tmp_path), num_speculative_tokens=2)
    assert given == {"method": "eagle3", "model": str(tmp_path), "num_speculative_tokens": 2}


def test_any_other_model_is_a_draft_model(target: str) -> None:
    given = drafting(speculative_model=target, num_speculative_tokens=2)
    assert given == {"method": "draft_model", "model": target, "num_speculative_tokens": 2}


NGRAM = {"speculative_model": "ngram", "num_speculative_tokens": 3}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({**NGRAM, "override_generation_config": {"min_p": 0.1}}, "min_p"),
        ({**NGRAM, "override_generation_config": {"logit_bias": {5: 1.0}}}, "logit_bias"),
        ({**NGRAM, "async_scheduling": True}, "async_scheduling"),
        ({**NGRAM, "enable_dbo": True}, "enable_dbo"),
        ({**NGRAM, "num_speculative_tokens": 129}, "128 tokens at most"),
        ({"speculative_model": "self:int4", "num_speculative_tokens": 3}, "self:int4"),
        ({"speculative_model": "some.gguf", "num_speculative_tokens": 3}, "GGUF"),
    ],
)
def test_what_vllm_refuses_with_drafts_is_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        arguments(**options)
    if "override_generation_config" in options:
        arguments(override_generation_config=options["override_generation_config"])
