"""Layers that keep a state give the same tokens however those come, and no slot is lost."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError, ModelError, RequestsFailed, SamplingParams
from outrider.cache.division import Division, GroupSize, StateSize
from outrider.config import resolve
from outrider.engine.lending import Patience
from outrider.models.checkpoint import open_checkpoint
from outrider.planning.plan import Ground, MemoryPlan, make_plan
from tests import planted
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.factories import write_noisy_copy
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES, LFM_2, config
from tests.models.head_features import FEATURES
from tests.watchers import Lent, record

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK_SIZE, CHUNK, LENGTH = 4, 10, 3
LONG = tuple(20 + i * 7 % 200 for i in range(70))
MIX = (LONG, *PROMPTS[:2], LONG[:40], LONG[:41])
OPTIONS: dict[str, Any] = {"block_size": BLOCK_SIZE, "prompt_chunk_size": CHUNK, "max_model_len": 100}
DRAFTERS = [None, "ngram", "draft", "itself", "self:int8", "head"]
Plain = Callable[[tuple[int, ...], SamplingParams], list[tuple[int, ...]]]


@pytest.fixture(scope="module", params=["qwen3.5", "lfm2"])
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """A target, and by their names what drafts for it."""
    target, draft, head = (tmp_path_factory.mktemp(name) for name in ("target", "draft", "head"))
    write_noisy_copy(draft, write_hf(target, FAMILIES[request.param].config()), noise=0.05)
    FEATURES["plain"](Path(head), open_checkpoint(str(target)).config)
    drafters = {"draft": draft, "itself": target, "head": head}
    own = {name: name for name in (None, "ngram", "self:int8")}
    return {"target": str(target)} | own | {n: str(p) for n, p in drafters.items()}


@pytest.fixture(scope="module")
def plain(models: Any) -> Plain:
    """What a request returns alone, in one chunk, with nothing adopted."""
    known: dict[tuple[tuple[int, ...], str], list[tuple[int, ...]]] = {}
    llm = load(models["target"], enable_prefix_caching=False)

    def tokens(prompt: tuple[int, ...], params: SamplingParams) -> list[tuple[int, ...]]:
        asked = params.model_copy(update={"num_speculative_tokens": None})
        key = prompt, asked.model_dump_json()
        if key not in known:
            known[key] = token_ids(llm.generate(prompt, asked, use_tqdm=False)[0])
        return known[key]

    return tokens


def params(temperature: float, seed: int, **others: Any) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=seed, ignore_eos=True, **{"max_tokens": 24} | others)


def options_of(models: Any, drafter: str | None, **options: Any) -> dict[str, Any]:
    if drafter is not None:
        options["num_speculative_tokens"] = LENGTH
    return OPTIONS | options


def built(models: Any, drafter: str | None, **options: Any) -> LLM:
    return load(models["target"], models[drafter], **options_of(models, drafter, **options))


def generate(llm: LLM, temperature: float = 0.0, prompts: Sequence[Any] = MIX, **others: Any) -> list[Any]:
    asked = [params(temperature, seed, **others) for seed in range(len(prompts))]
    return llm.generate(list(prompts), asked, use_tqdm=False)


def differing(outputs: Sequence[Any], plain: Plain, temperature: float = 0.0, **others: Any) -> int:
    """How many outputs have other tokens than alone."""
    return sum(
        token_ids(output) != plain(tuple(output.prompt_token_ids), params(temperature, seed, **others))
        for seed, output in enumerate(outputs)
    )


def assert_all_free(llm: LLM) -> None:
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_same_tokens_cold_and_warm(models: Any, plain: Plain, drafter: str | None) -> None:
    llm = built(models, drafter)
    for temperature in (0.0, 0.8):
        outputs = generate(llm, temperature)
        assert differing(outputs, plain, temperature) == 0
        assert_all_free(llm)
    cached = [output.num_cached_tokens for output in outputs]
    assert cached[0] == (len(LONG) - 1) // BLOCK_SIZE * BLOCK_SIZE, "up to the last end of a block"
    if drafter is not None:
        assert sum(output.outputs[0].speculation.drafted for output in outputs) > 0
    if drafter == "itself":  # its states stay right from draft to draft, so that it always is
        drafts = outputs[0].outputs[0].speculation
        assert drafts.accepted == drafts.drafted > (drafts.drafts - 1) * LENGTH


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_prompts_in_chunks(models: Any, plain: Plain, chunk: int) -> None:
    llm = built(models, "ngram", prompt_chunk_size=chunk, block_size=3)
    assert differing(generate(llm, 0.7), plain, 0.7) == 0


def test_a_conversation_goes_on_from_its_answer(models: Any, plain: Plain) -> None:
    """States at the ends of blocks of an answer are found too, also behind a draft that jumped over them."""
    llm = built(models, "itself")
    first = generate(llm, prompts=(LONG[:30],), max_tokens=20)[0]
    text = (*LONG[:30], *first.outputs[0].token_ids, 5, 6, 7)
    second = generate(llm, prompts=(text,))
    assert second[0].num_cached_tokens == (30 + 20 - 1) // BLOCK_SIZE * BLOCK_SIZE
    assert differing(second, plain) == 0


def planned(models: Any, drafter: str | None, **options: Any) -> MemoryPlan:
    options = options_of(models, drafter, **options)
    if drafter is not None:
        options["speculative_model"] = models[drafter]
    config = resolve(models["target"], device="cpu", **options)
    return make_plan(config, Ground(2**40, 2**20, open_checkpoint(config.model), open_checkpoint))


def least(models: Any, drafter: str | None, **options: Any) -> int:
    """Bytes of the cache without which no engine is built."""
    with pytest.raises(ConfigError, match="needs kv_cache_memory of") as refused:
        built(models, drafter, kv_cache_memory=1, **options)
    found = re.search(r"of (\d+) bytes at least", str(refused.value))
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("drafter", [None, "itself", "head"])
def test_the_least_that_serves_one_request(models: Any, plain: Plain, drafter: str | None) -> None:
    """It gets to its end with that, with drafts of the whole length, and less is refused."""
    options: dict[str, Any] = {"max_num_seqs": 3}
    plan = planned(models, drafter, **options)
    sizes = plan.caches.sizes[:-1]
    slots = [size for size in sizes if isinstance(size, StateSize)]
    assert len(slots) == (2 if drafter == "itself" else 1), "a draft model has states of its own"
    needed = Division(sizes, 3).bytes_of_one(100)
    assert plan.cache_block == sum(size.block_bytes for size in sizes if isinstance(size, GroupSize))
    assert needed == least(models, drafter, **options)
    llm = built(models, drafter, kv_cache_memory=needed, **options)
    states_of_target = llm.engine.target.pool.states
    assert states_of_target is not None
    assert states_of_target.num_blocks == slots[0].slots == 2 + LENGTH * (drafter is not None)
    caches = llm.engine.target._state_caches
    assert sum(cache.values[0].nbytes for cache in caches) == slots[0].block_bytes
    outputs = generate(llm, prompts=(LONG,))
    assert differing(outputs, plain) == 0
    if drafter == "itself":
        drafts = outputs[0].outputs[0].speculation
        assert drafts.accepted == drafts.drafted > (drafts.drafts - 1) * LENGTH
    assert differing(generate(llm, prompts=(LONG, LONG[:40])), plain) == 0
    with pytest.raises(ConfigError, match=f"max_model_len = 100 needs kv_cache_memory of {needed} bytes"):
        built(models, drafter, kv_cache_memory=needed - 1, **options)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_forced_preemption(models: Any, plain: Plain, drafter: str | None) -> None:
    """With room for one long request, and some for the others that may run."""
    options: dict[str, Any] = {"max_num_seqs": 8}
    llm = built(models, drafter, kv_cache_memory=least(models, drafter, **options) * 4 // 3, **options)
    recorded = record(llm)
    assert differing(generate(llm, 1.0), plain, 1.0) == 0
    assert any(recorded.preempted)
    assert_all_free(llm)


def test_lent_slots_come_back(models: Any, plain: Plain) -> None:
    options: dict[str, Any] = {"max_num_seqs": 8}
    llm = built(models, "draft", kv_cache_memory=least(models, "draft", **options) * 4 // 3, **options)
    llm.engine.lending.patience = Patience(idle=1, quiet=1)
    slots = llm.engine.target.pool.states
    assert slots is not None
    assert slots.reserve > 0
    llm.engine.watchers.append(watcher := Lent(llm.engine.lending, [slots]))
    assert differing(generate(llm, num_speculative_tokens=0), plain) == 0
    assert any(watcher.lent)
    assert differing(generate(llm, prompts=(LONG[:20],)), plain) == 0
    assert not watcher.lent[-1]


def test_a_model_without_attention_is_refused(tmp_path: Path) -> None:
    write_hf(tmp_path, config("Lfm2Config", **LFM_2 | {"layer_types": ["conv"] * 4})())
    with pytest.raises(ModelError, match="no layer of the model attends"):
        load(str(tmp_path))


# Planted faults


def broken(llm: LLM, plain: Plain, prompts: Sequence[Any] = MIX) -> bool:
    """Whether some request fails or has other tokens, in two rounds."""
    try:
        return any(differing(generate(llm, prompts=prompts), plain) for _ in range(2))
    except RequestsFailed:
        return True


def test_a_state_of_another_row_is_noticed(
    models: Any, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot that stays after a draft is that of the row before the last that stands."""

    planted.keep_states_of_the_row_before(monkeypatch)
    assert broken(built(models, "itself", enable_prefix_caching=False), plain)


def test_a_slot_released_too_early_is_noticed(
    models: Any, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot of the states that the next row reads is free, and another request writes to it."""
    planted.release_states_early(monkeypatch)
    assert broken(built(models, None, enable_prefix_caching=False), plain)


def test_states_of_a_request_before_are_noticed(
    models: Any, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new request begins with the states in some slot and not with zeros: the kernels refuse it."""
    planted.begin_with_states(monkeypatch)
    assert broken(built(models, None, enable_prefix_caching=False), plain)


def test_states_published_at_another_position_are_noticed(
    models: Any, plain: Plain, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.publish_other_states(monkeypatch)
    assert broken(built(models, "itself"), plain)
