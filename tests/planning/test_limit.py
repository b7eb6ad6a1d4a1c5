"""Plans under a limit: what fits, what is refused and in which words, and that nothing is built then."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from outrider import LLM, ConfigError, ModelError, SamplingParams
from outrider.config import resolve
from outrider.drafting.registry import SOURCES
from outrider.models.checkpoint import open_checkpoint
from outrider.planning import limit as limits
from outrider.planning.allowed import Limit
from outrider.planning.choices import Choices, choices
from outrider.planning.drafters import FOOTPRINTS
from outrider.planning.plan import HELD_BACK, Ground, MemoryPlan, make_plan
from outrider.planning.process import free_bytes, process_bytes
from outrider.speculative_config import SpeculativeConfig

MIB = 2**20
GROUND = 300 * MIB  # what the process is said to take


def ground(model: str, limit: int) -> Ground:
    return Ground(limit, GROUND, open_checkpoint(model), open_checkpoint)


def plan(model: str, limit: int = 2**40, **options: Any) -> MemoryPlan:
    return make_plan(resolve(model, device="cpu", **options), ground(model, limit))


def surveyed(model: str, limit: int, **options: Any) -> Choices:
    return choices(resolve(model, device="cpu", **options), ground(model, limit))


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*args: Any, **kwargs: Any) -> NoReturn:
        raise AssertionError("an engine was built")

    monkeypatch.setattr("outrider.engines.build_engine", build)


def test_every_kind_of_drafter_says_what_it_takes() -> None:
    assert FOOTPRINTS.keys() == SOURCES.keys()


def test_parts_make_up_the_whole(target: str) -> None:
    found = plan(target, max_num_seqs=3, max_model_len=100)
    assert found.blocks == 3 * 7  # of 16 positions
    assert found.total == max(
        found.loading, found.runtime + found.target + found.activations + 21 * found.block
    )
    assert found.concurrency == 3
    assert found.runtime > GROUND


def test_a_draft_counts_with_weights_and_cache(target: str, draft: str) -> None:
    alone = plan(target, max_num_seqs=1)
    ngram = plan(target, max_num_seqs=1, speculative_model="ngram", num_speculative_tokens=4)
    model = plan(target, max_num_seqs=1, speculative_model=draft, num_speculative_tokens=4)
    itself = plan(target, max_num_seqs=1, speculative_model=target, num_speculative_tokens=4)
    chain = plan(target, max_num_seqs=1, speculative_model=["ngram", draft], num_speculative_tokens=4)
    assert alone.drafts == itself.drafts == 0
    assert (
        ngram.drafts == SpeculativeConfig.model_fields["suffix_memory"].default
    )  # texts of finished requests
    assert model.drafts == model.target
    assert model.cache_block == itself.cache_block == 2 * alone.cache_block
    assert alone.block < ngram.block  # an index grows with the text
    assert chain.block - model.block == ngram.block - alone.block
    assert alone.activations < ngram.activations < model.activations


def test_more_memory_is_never_less_context(target: str) -> None:
    least = plan(target, max_num_seqs=2).least
    found = [plan(target, least + extra, max_num_seqs=2) for extra in range(-2 * MIB, 3 * MIB, MIB // 16)]
    assert [p.fits for p in found] == [p.limit >= least for p in found]
    assert sorted(p.positions for p in found) == [p.positions for p in found]
    assert found[-1].positions == 2 * 1024  # what two requests of this model can use
    assert all(p.total <= p.limit for p in found if p.fits)


def test_what_is_left_is_cache_to_the_last_block(target: str, draft: str) -> None:
    drafters: list[dict[str, Any]] = [{}, {"speculative_model": draft, "num_speculative_tokens": 3}]
    for options in drafters:
        roomy = plan(target, max_num_seqs=2, **options)
        found = plan(target, roomy.least + 8 * roomy.block, max_num_seqs=2, **options)
        usable = found.limit - -(-found.limit // HELD_BACK)
        assert found.total <= usable < found.total + found.block


def test_loading_counts_with_all_that_is_loaded_by_then(target: str, draft: str) -> None:
    found = plan(target, speculative_model=draft, max_num_seqs=1)
    assert found.loading >= found.runtime + found.target + found.drafts


def test_as_many_requests_as_have_room(target: str) -> None:
    one = plan(target, max_num_seqs=1).least
    asked = plan(target, one, max_num_seqs=16)
    assert not asked.fits  # 16 requests have more logits a pass
    assert plan(target, one).max_num_seqs == 1
    assert plan(target).max_num_seqs == 64
    several = plan(target, one + MIB)
    assert several.positions >= several.max_num_seqs * 512 > 512


def test_the_cache_stays_what_it_was_told(target: str) -> None:
    found = plan(target, kv_cache_memory=10 * plan(target).cache_block, max_num_seqs=1)
    assert found.blocks == 10
    assert found.context == 160


def test_what_loses_least_is_recommended(target: str) -> None:
    """The tiny model is stored as float32."""
    sizes = {c.format: c.plan for c in surveyed(target, 2**40, max_num_seqs=1).all if c.drafter == "none"}
    assert list(sizes) == ["as stored", "bfloat16", "int8", "int4"]
    assert sorted(sizes, key=lambda name: -sizes[name].target) == list(sizes)
    roomy = surveyed(target, 2**40, max_num_seqs=1)
    assert roomy.recommended is not None
    assert roomy.fastest is not None
    assert (roomy.recommended.format, roomy.fastest.format) == ("as stored", "int4")
    between = surveyed(target, sizes["int8"].least, max_num_seqs=1)
    assert between.recommended is not None
    assert between.recommended.format == "int8"
    assert between.recommended.plan.fits
    nothing = surveyed(target, sizes["int4"].least - 1, max_num_seqs=1)
    assert nothing.recommended is nothing.fastest is nothing.instead is None
    assert nothing.smallest.format == "int4"


def test_refused_with_what_would_fit(target: str, draft: str) -> None:
    options = {"speculative_model": draft, "num_speculative_tokens": 3, "max_num_seqs": 1}
    by_format = {c.format: c for c in surveyed(target, 2**40, **options).all if c.drafter == draft}
    found = surveyed(target, by_format["int8"].plan.least, **options)
    said = limits.refusal(found, Limit(found.given.plan.limit, "memory_limit"))
    for part in (
        f"memory_limit = {found.given.plan.limit} bytes",
        repr(target),
        "runtime",
        "target",
        "draft",
    ):
        assert part in said
    assert said.endswith(f"fits, in {-(-found.instead.plan.least // MIB)} MiB")  # type: ignore[union-attr]
    assert "quantization='int8'" in said
    nothing = surveyed(target, GROUND + MIB, **options)
    said = limits.refusal(nothing, Limit(GROUND + MIB, "memory_limit"))
    least = -(-nothing.smallest.plan.least // MIB)
    assert f"nothing else fits either: raise memory_limit to {least} MiB" in said


def test_the_limit_is_kept(target: str) -> None:
    """The engine has the cache that the plan gave it."""
    here = replace(ground(target, 2**40), process=process_bytes())
    least = make_plan(resolve(target, device="cpu", max_num_seqs=1), here)
    llm = LLM(target, device="cpu", memory_limit=least.least + 8 * MIB)
    room = llm.engine.target.pool.num_blocks * least.cache_block
    assert 0 < room <= llm.config.kv_cache_memory <= least.least_cache + 9 * MIB
    output = llm.generate("the end", SamplingParams(max_tokens=4, temperature=0), use_tqdm=False)[0]
    free = LLM(target, device="cpu").generate(
        "the end", SamplingParams(max_tokens=4, temperature=0), use_tqdm=False
    )
    assert output.outputs[0].token_ids == free[0].outputs[0].token_ids


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize("size", ["1KiB", "100MB", 4096])
def test_less_than_the_process_itself(target: str, size: Any) -> None:
    with pytest.raises(ConfigError, match=r"memory_limit = \d+ bytes .*Python and libraries; .*MiB"):
        LLM(target, device="cpu", memory_limit=size)


@pytest.mark.usefixtures("nothing_is_built")
def test_too_little_for_the_model(target: str) -> None:
    with pytest.raises(
        ConfigError, match=r"does not hold.*needs.*nothing else fits either: raise memory_limit"
    ):
        LLM(target, device="cpu", memory_limit=process_bytes() + 12 * MIB)


@pytest.mark.usefixtures("nothing_is_built")
def test_more_than_the_machine_has(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "free_bytes", lambda: 100 * MIB)
    with pytest.raises(ConfigError, match=r"more than this process can have here, .* MiB; lower it"):
        LLM(target, device="cpu", memory_limit="100GiB")


@pytest.mark.parametrize(
    ("size", "named"), [(0, "memory_limit = 0"), ("0MiB", "memory_limit"), ("12QB", "'512MiB'"), (-1, "-1")]
)
def test_no_size_at_all(target: str, size: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        LLM(target, memory_limit=size)


@pytest.mark.usefixtures("nothing_is_built")
def test_models_that_are_not_there(target: str, tmp_path: Path) -> None:
    cases: list[dict[str, Any]] = [
        {"model": "nowhere"},
        {"model": target, "speculative_model": str(tmp_path / "none")},
    ]
    for options in cases:
        with pytest.raises(ModelError, match="does not exist"):
            LLM(**options, device="cpu", memory_limit="100GiB")


def test_pytorch_is_planned_on_the_cpu_alone(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.empty", lambda *args, **kwargs: None)  # as if there were one
    said = r"device = 'cuda' \(cuda\).*what PyTorch takes beside the CPU is not planned"
    with pytest.raises(ConfigError, match=said):
        make_plan(resolve(target, device="cuda", backend="torch"), ground(target, 2**40))


def test_memory_that_control_groups_leave_is_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.planning.process.memory_left", lambda: 4000)
    assert free_bytes() == 4000
    monkeypatch.setattr("outrider.planning.process.memory_left", lambda: math.inf)
    assert 4000 < free_bytes() < 2**60


def test_a_plan_that_loading_decides(target: str) -> None:
    """Where loading needs more than what remains, that is what has to fit."""
    found = plan(target, max_num_seqs=1)
    heavy = replace(found, loading=found.total + MIB, limit=found.total)
    assert heavy.total == heavy.loading < heavy.least
    assert not heavy.fits
