"""Layers with a window keep no more than it reaches, and no token is another for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import MistralConfig, MistralForCausalLM

from outrider import LLM, ConfigError, Increment, RequestsFailed, SamplingParams
from outrider.cache import table
from outrider.cache.division import Division, Size
from outrider.cache.groups import groups_of
from outrider.config import resolve
from outrider.engine.lending import Patience
from outrider.engine.seam import StepEngine
from outrider.engine.watcher import Watcher
from outrider.measurement.ties import gap_at
from outrider.models import runner
from outrider.models.checkpoint import open_checkpoint
from outrider.planning.plan import Ground, make_plan
from tests import planted
from tests.engine.helpers import PROMPTS, held_blocks, load, token_ids
from tests.factories import tiny_config, write_model, write_noisy_copy
from tests.models.head_features import FEATURES
from tests.watchers import Lent, check, record

pytestmark = pytest.mark.usefixtures("one_thread")

WINDOW, BLOCK_SIZE, CHUNK, LENGTH = 12, 4, 8, 3
LONG = tuple(20 + i * 7 % 200 for i in range(70))
MIX = (LONG, *PROMPTS[:2], LONG[:40], LONG[:41])
OPTIONS: dict[str, Any] = {"block_size": BLOCK_SIZE, "prompt_chunk_size": CHUNK, "max_model_len": 160}
DRAFTERS = [None, "ngram", "draft", "itself", "head"]


def mistral(seed: int = 0) -> Any:
    sizes = tiny_config().to_dict()
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    return MistralConfig(
        **{name: sizes[name] for name in (*names, "num_hidden_layers", "initializer_range", "eos_token_id")},
        max_position_embeddings=256,
        sliding_window=WINDOW,
        architectures=["MistralForCausalLM"],
        tie_word_embeddings=False,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str | None, str | None]:
    """A target, and by their names what drafts for it: the head has a window too, a smaller one."""
    target, draft, head = (tmp_path_factory.mktemp(name) for name in ("target", "draft", "head"))
    write_noisy_copy(draft, write_model(target, mistral(), model_class=MistralForCausalLM), noise=0.05)
    FEATURES["sliding_window"](Path(head), open_checkpoint(str(target)).config)
    drafters = {"draft": draft, "itself": target, "head": head}
    return {"target": str(target), None: None, "ngram": "ngram"} | {n: str(p) for n, p in drafters.items()}


Plain = Callable[[tuple[int, ...], SamplingParams], list[tuple[int, ...]]]


@pytest.fixture(scope="module")
def plain(models: Any) -> Plain:
    """What a request returns alone, with nothing given back and nothing adopted."""
    known: dict[tuple[tuple[int, ...], str], list[tuple[int, ...]]] = {}
    llm = load(models["target"], enable_prefix_caching=False)

    def tokens(prompt: tuple[int, ...], params: SamplingParams) -> list[tuple[int, ...]]:
        asked = params.model_copy(update={"num_speculative_tokens": None})
        key = prompt, asked.model_dump_json()
        if key not in known:
            with pytest.MonkeyPatch.context() as patch:
                planted.never_give_back(patch)
                known[key] = token_ids(llm.generate(prompt, asked, use_tqdm=False)[0])
        return known[key]

    return tokens


@pytest.fixture(params=["one group", "two groups"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Options of an engine whose layers are in one group, or of which the first keeps the whole text."""
    if request.param == "one group":
        return {}

    def first_whole(model: Any) -> Any:
        return groups_of([None, *(shape.window for shape in model.shapes[1:])])

    monkeypatch.setattr(runner, "cache_groups", first_whole)
    return {}


def params(temperature: float, seed: int, **others: Any) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=seed, ignore_eos=True, **{"max_tokens": 24} | others)


def built(models: Any, drafter: str | None, **options: Any) -> LLM:
    if drafter is not None:
        options["num_speculative_tokens"] = LENGTH
    return load(models["target"], models[drafter], **OPTIONS | options)


def watch(llm: LLM, ahead: int) -> None:
    """Check after each step that every block is free or held, and that nobody holds more than it may."""
    target = llm.engine.target
    sizes = runner.group_sizes(target.model, target.block_size, ahead, LENGTH)

    class Free(Watcher):
        def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
            for pool, held in held_blocks(engine.ours):
                check(pool.num_free == pool.num_blocks - len(held), "a block is neither free nor held")

    class CountedTable(table.BlockTable):
        def extend(self, length: int, drafted: int = 0) -> None:
            super().extend(length, drafted)
            for size, blocks in zip(sizes, self.tables, strict=True):
                check(sum(block >= 0 for block in blocks) <= size.blocks(length), "more than it may hold")

    def new_table(salt: str | None = None) -> table.BlockTable:
        return CountedTable(target.pool.of_groups, target.block_size, prefix_caching=True)

    llm.engine.watchers.append(Free())
    target.table = new_table  # type: ignore[method-assign]


def assert_same(llm: LLM, plain: Plain, temperature: float, prompts: Any = MIX, **others: Any) -> list[Any]:
    asked = [params(temperature, seed, **others) for seed in range(len(prompts))]
    outputs = llm.generate(prompts, asked, use_tqdm=False)
    for prompt, one, output in zip(prompts, asked, outputs, strict=True):
        assert token_ids(output) == plain(prompt, one)
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks
    return outputs


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_same_tokens_cold_and_warm(
    models: Any, plain: Plain, groups: dict[str, Any], drafter: str | None
) -> None:
    llm = built(models, drafter, **groups)
    watch(llm, CHUNK + LENGTH * (drafter is not None))
    cold, warm = (assert_same(llm, plain, 0.0) for _ in range(2))
    assert sum(o.num_cached_tokens for o in warm) > sum(o.num_cached_tokens for o in cold)
    assert warm[0].num_cached_tokens > WINDOW
    if drafter is not None:
        assert sum(o.outputs[0].speculation.drafted for o in cold) > 0


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_prompts_in_chunks(models: Any, plain: Plain, groups: dict[str, Any], chunk: int) -> None:
    llm = built(models, "ngram", prompt_chunk_size=chunk, block_size=3, **groups)
    watch(llm, chunk + LENGTH)
    assert_same(llm, plain, 0.7)


def least(models: Any, drafter: str | None, **options: Any) -> int:
    """Bytes of the cache without which no engine is built."""
    with pytest.raises(ConfigError, match="needs kv_cache_memory of") as refused:
        built(models, drafter, kv_cache_memory=1, **options)
    found = re.search(r"of (\d+) bytes at least", str(refused.value))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_forced_preemption(models: Any, plain: Plain, groups: dict[str, Any], drafter: str | None) -> None:
    """With room for one request, if it is long, and a few blocks for the other seven that may run."""
    options: dict[str, Any] = {"max_num_seqs": 8, "max_model_len": 100} | groups
    needed = least(models, drafter, **options)
    llm = built(models, drafter, kv_cache_memory=needed * 4 // 3, **options)
    recorded = record(llm)
    assert_same(llm, plain, 1.0)
    assert any(recorded.preempted)


def sizes_of(models: Any, drafter: str | None, **options: Any) -> tuple[Size, ...]:
    """As they are planned."""
    if drafter is not None:
        options |= {"speculative_model": models[drafter], "num_speculative_tokens": LENGTH}
    config = resolve(models["target"], device="cpu", **OPTIONS | options)
    plan = make_plan(config, Ground(2**40, 2**20, open_checkpoint(config.model), open_checkpoint))
    return plan.caches.sizes[:-1]


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("block_size", [1, 4, 7])
def test_the_least_that_serves_one_request(
    models: Any, plain: Plain, drafter: str | None, block_size: int
) -> None:
    """It gets to its end with that, and an engine is not built with less."""
    options: dict[str, Any] = {"block_size": block_size, "max_num_seqs": 3}
    needed = Division(sizes_of(models, drafter, **options), 3).bytes_of_one(160)
    assert needed == least(models, drafter, **options)
    llm = built(models, drafter, kv_cache_memory=needed, **options)
    alone = assert_same(llm, plain, 0.0, prompts=(LONG,), max_tokens=60)[0].outputs[0].speculation
    if drafter == "itself":  # it is always right, and finds room for drafts of the whole length
        assert alone.accepted == alone.drafted > (alone.drafts - 1) * LENGTH  # the last meets the end
    assert_same(llm, plain, 0.0, prompts=(LONG, LONG[:40]))
    with pytest.raises(ConfigError, match=f"max_model_len = 160 needs kv_cache_memory of {needed} bytes"):
        built(models, drafter, kv_cache_memory=needed - 1, **options)


@pytest.mark.parametrize("drafter", ["draft", "head"])
def test_drafters_give_back_too(models: Any, drafter: str) -> None:
    """With room for one window they draft to the end of a long text."""
    llm = built(models, drafter, max_num_seqs=1)
    llm.engine.add(LONG, params(0.0, 0, max_tokens=80))
    drafted = [sum(i.drafted for i in llm.engine.step()) for _ in iter(lambda: llm.engine.unfinished, False)]
    assert all(drafted[20:-2])


def test_memory_is_lent_by_group_and_comes_back(models: Any, plain: Plain, groups: dict[str, Any]) -> None:
    options: dict[str, Any] = {"max_num_seqs": 8, "max_model_len": 100} | groups
    llm = built(models, "draft", kv_cache_memory=least(models, "draft", **options) * 4 // 3, **options)
    llm.engine.lending.patience = Patience(idle=1, quiet=1)
    watch(llm, CHUNK + LENGTH)
    pools = llm.engine.target.pool.of_groups
    assert all(pool.reserve > 0 for pool in pools)
    llm.engine.watchers.append(watcher := Lent(llm.engine.lending, pools))
    assert_same(llm, plain, 0.0, num_speculative_tokens=0)
    assert any(watcher.lent)
    outputs = assert_same(llm, plain, 0.0, prompts=(PROMPTS[0],))
    assert not watcher.lent[-1]
    assert outputs[0].outputs[0].speculation.drafted > 0


@pytest.mark.parametrize("prefix_caching", [True, False])
def test_all_requests_have_their_windows(models: Any, plain: Plain, prefix_caching: bool) -> None:
    """However long their texts are, nobody is preempted, and no more memory is taken than that."""
    llm = built(models, "ngram", max_num_seqs=8, enable_prefix_caching=prefix_caching)
    recorded = record(llm)
    (size,) = sizes_of(models, "ngram")
    assert llm.engine.target.pool.num_blocks == 8 * size.blocks(160) < 8 * 160 // BLOCK_SIZE
    assert_same(llm, plain, 0.0, prompts=(LONG,) * 8, max_tokens=40)
    assert not any(recorded.preempted)


def test_what_follows_a_long_text_finds_its_window(models: Any, plain: Plain) -> None:
    """A conversation goes on where the engine has room for the window of one request alone."""
    (size,) = sizes_of(models, None)
    llm = built(models, None, max_num_seqs=1)
    first = assert_same(llm, plain, 0.0, prompts=(LONG,), max_tokens=20)[0]
    assert llm.engine.target.pool.num_blocks == size.blocks(160)
    text = (*LONG, *first.outputs[0].token_ids, 5, 6, 7)
    second = assert_same(llm, plain, 0.0, prompts=(text,), max_tokens=20)[0]
    assert second.num_cached_tokens == (len(LONG) + 19) // BLOCK_SIZE * BLOCK_SIZE


def test_a_tie_is_looked_at_in_a_cache_of_one_window(models: Any) -> None:
    (size,) = sizes_of(models, None)
    small, large = (
        built(models, None, max_num_seqs=1, **more)
        for more in ({}, {"prompt_chunk_size": 256, "max_num_batched_tokens": 256})
    )
    assert small.engine.target.pool.num_blocks == size.blocks(160) < len(LONG) // BLOCK_SIZE
    small_gap, large_gap = (gap_at(llm.engine, LONG, [5, 9], 10, params(0.0, 0)) for llm in (small, large))
    assert small_gap == large_gap
    assert small.engine.target.pool.num_free == small.engine.target.pool.num_blocks


# Planted faults


@pytest.mark.parametrize("early", [0, 1])
def test_a_block_given_back_too_early_is_missed(
    models: Any, plain: Plain, early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.give_blocks_back(monkeypatch, early)
    llm = built(models, None, block_size=1, max_num_seqs=1, enable_prefix_caching=False)
    request = params(0.0, 0, max_tokens=60)
    if early:  # the kernels refuse to read what is not there
        with pytest.raises(RequestsFailed, match="internal error"):
            llm.generate(LONG, request, use_tqdm=False)
    else:
        assert token_ids(llm.generate(LONG, request, use_tqdm=False)[0]) == plain(LONG, request)


@pytest.mark.parametrize("late", [0, 1])
def test_a_block_given_back_too_late_costs_memory(
    models: Any, late: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is as much as one request needs, it does not get to its end."""
    planted.give_blocks_back(monkeypatch, -late)
    llm = built(models, None, block_size=1, max_num_seqs=1)
    llm.engine.add(LONG, params(0.0, 0, max_tokens=5))
    for _ in range(40):
        llm.engine.step()
    assert llm.engine.unfinished == (late == 1)
