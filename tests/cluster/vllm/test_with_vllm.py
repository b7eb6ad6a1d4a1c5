"""With vLLM itself, where it is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, SamplingParams
from outrider.cluster.vllm.config import resolve_vllm
from outrider.cluster.vllm.devices import memory_node
from outrider.cluster.vllm.plan import make_plan
from tests.factories import tiny_config, write_model
from tests.serving.harness import running

pytest.importorskip("vllm", reason="vLLM is not installed; `make vllm-env` makes an environment with it")
pytestmark = pytest.mark.timeout(900)  # a process that imports vLLM takes a minute where others compute

SMALL: dict[str, Any] = {
    "enforce_eager": True,
    "dtype": "float32",
    "max_model_len": 256,
    "max_num_seqs": 4,
    "max_num_batched_tokens": 256,
    "kv_cache_memory": "16MiB",
}
PROMPTS = [(5, 6, 7, 5, 6, 7, 5, 6), (10, 20, 30), (40, 41, 42, 43, 40, 41, 42, 43, 40, 41)]
GREEDY = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True)
LENGTH = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Its heads have a size that vLLM's kernels for the CPU take."""
    path: Path = tmp_path_factory.mktemp("vllm") / "model"
    write_model(path, tiny_config(hidden_size=128, head_dim=32))
    return str(path)


@pytest.fixture(scope="module", autouse=True)
def _in_this_process() -> Iterator[None]:
    """vLLM's own processes would import all anew; the test of several of them has them all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield


def planned(llm: LLM, **options: Any) -> bool:
    """Whether vLLM's cache holds as many positions and requests as the plan says."""
    engine: Any = llm.shared.engine
    cache = engine._engine.vllm_config.cache_config
    plan = make_plan(resolve_vllm(llm.config.model, **SMALL, **options), memory_node(2**34))
    return (cache.kv_cache_size_tokens, cache.kv_cache_max_concurrency) == (plan.positions, plan.requests)


@pytest.fixture(scope="module")
def plain(model: str) -> list[tuple[int, ...]]:
    with LLM(model, engine="vllm", **SMALL) as llm:
        assert planned(llm)
        outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
        assert [output.outputs[0].text for output in outputs] == [
            llm.tokenizer.decode(output.outputs[0].token_ids) for output in outputs
        ]
    return [output.outputs[0].token_ids for output in outputs]


def test_our_engine_says_the_same(model: str, plain: list[tuple[int, ...]]) -> None:
    """In float32 nothing of a model like this one is near a tie."""
    outputs = LLM(model, device="cpu", dtype="float32").generate(PROMPTS, GREEDY, use_tqdm=False)
    assert [output.outputs[0].token_ids for output in outputs] == plain


def test_a_draft_that_is_always_right(model: str, plain: list[tuple[int, ...]]) -> None:
    """The target drafts for itself. vLLM's counters, and what we make of each request, tell of it alike."""
    drafting: dict[str, Any] = {"speculative_model": model, "num_speculative_tokens": LENGTH}
    with LLM(model, engine="vllm", **drafting, **SMALL) as llm:
        assert planned(llm, **drafting)
        outputs = [output.outputs[0] for output in llm.generate(PROMPTS, GREEDY, use_tqdm=False)]
        counted = {metric.name.removeprefix("vllm:"): metric for metric in llm.get_metrics()}
    assert [output.token_ids for output in outputs] == plain
    for output in outputs:
        assert output.speculation.acceptance_length > LENGTH  # the last draft may be cut
    metric: Any = counted["spec_decode_num_drafts"]
    assert metric.value == sum(output.speculation.drafts for output in outputs)


def test_the_server_streams(model: str) -> None:
    messages: Any = [{"role": "user", "content": "the end"}]
    lookup: dict[str, Any] = {"speculative_model": "ngram", "num_speculative_tokens": LENGTH}
    with LLM(model, engine="vllm", **lookup, **SMALL) as llm, running(llm) as served:
        client = served.client(timeout=300)
        asked: dict[str, Any] = {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 24}
        whole = client.chat.completions.create(**asked)
        chunks = [*client.chat.completions.create(**asked, stream=True)]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole.choices[0].message.content
    assert len(chunks) > 4


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="each process wants a core of its own")
def test_two_processes_share_a_model(
    model: str, plain: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's executor cannot be had on the CPU: 'current platform cpu does not support ray'."""
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0|1")  # by itself vLLM wants a memory node for each
    split: dict[str, Any] = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}
    with LLM(model, engine="vllm", **split, **SMALL) as llm:
        assert planned(llm, **split)
        outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    assert [output.outputs[0].token_ids for output in outputs] == plain
