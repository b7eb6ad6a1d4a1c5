"""Costs: measured without harm, whatever room there is, and kept where they hold."""

from __future__ import annotations

import json
import logging
import mmap
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from platformdirs import user_cache_path

from outrider import SamplingParams
from outrider.config import resolve
from outrider.drafting.auto import AutoLength
from outrider.drafting.costs import DraftCost, TargetCost
from outrider.drafting.model import ModelDrafter
from outrider.engine.build import build_engine
from outrider.engine.cost_file import CostFile
from outrider.engine.engine import Engine
from outrider.engine.profile import Measuring, TargetTimer, target_cost
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.span import Span
from tests.engine.helpers import BLOCK, PROMPTS, cost_files, expected, load, output_of, token_ids
from tests.models.factories import exact_backend, write_hf
from tests.models.families.table import QWEN_3_MOE, config
from tests.watchers import before_passes

QUICK = Measuring(seconds=0.02, jitter=1.0)
"""Hardly any time, in which a busy machine measures wrongly; so it believes what was kept."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's files, empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def auto(target: str, drafter: Any, **options: Any) -> Engine:
    options |= {"speculative_model": drafter, "num_speculative_tokens": "auto"}
    return build_engine(resolve(target, device="cpu", **options), measuring=QUICK)


def policy_of(engine: Engine) -> AutoLength:
    found = engine.scheduler.policy
    assert isinstance(found, AutoLength)
    return found


def all_free(engine: Engine) -> bool:
    runners = [d.runner for d in engine.drafters.drafters if isinstance(d, ModelDrafter)]
    return all(r.pool.num_free == r.pool.num_blocks for r in (engine.target, *runners))


@pytest.mark.parametrize("drafter", ["ngram", "draft", "chain"])
def test_measured_costs_make_sense(target: str, draft: str, drafter: str) -> None:
    names = {"ngram": ["ngram"], "draft": [draft], "chain": ["ngram", draft]}[drafter]
    engine = auto(target, names)
    found = policy_of(engine)
    passes = [found.target.one_pass(rows) for rows in range(1, 65)]
    assert passes[0] > 0
    assert passes == sorted(passes)
    assert found.target.attention(100, 100) >= 0
    assert found.target.request > 0
    for link in found.links:
        assert min(link.cost.as_json().values()) >= 0
        assert link.cost.fixed + link.cost.each + link.cost.first > 0
    assert all_free(engine)
    for drafting in engine.drafters.drafters:
        assert not getattr(drafting, "_tables", None)
        assert not getattr(drafting, "_indexes", None)


@pytest.mark.parametrize("drafter", ["ngram", "draft"])
@pytest.mark.parametrize(
    "options",
    [
        {"max_model_len": 2},
        {"max_model_len": 3, "max_num_seqs": 1},
        {"max_model_len": 4},
        {"max_model_len": 5},
        {"max_model_len": 6},
        {"max_model_len": 16, "kv_cache_memory": 2 * BLOCK},
        {"max_model_len": 40, "kv_cache_memory": 6 * BLOCK},
        {"max_model_len": 200, "kv_cache_memory": 26 * BLOCK},
        {"max_num_batched_tokens": 1, "max_num_seqs": 1},
        {"max_num_batched_tokens": 1, "max_num_seqs": 1, "block_size": 1, "max_model_len": 8},
        {"max_num_batched_tokens": 2, "max_num_seqs": 2, "block_size": 1},
        {"enable_prefix_caching": False, "block_size": 5},
    ],
    ids=str,
)
def test_little_room(target: str, drafter: str, options: dict[str, Any], request: Any) -> None:
    """Nothing is measured beyond what there is room for, and the engine works."""
    name = drafter if drafter == "ngram" else request.getfixturevalue(drafter)
    engine = auto(target, name, **options)
    assert all_free(engine)
    one = SamplingParams(temperature=0, max_tokens=8)
    room = engine.max_model_len - 1
    prompt, params = PROMPTS[3], one.model_copy(update={"max_tokens": min(8, room)})
    assert token_ids(output_of(engine, prompt, one)) == token_ids(expected(target, prompt, params))
    assert all_free(engine)


@pytest.mark.parametrize("max_model_len", [2, 3, 5, 6, 40])
def test_every_pass_is_within_the_room(
    target: str, max_model_len: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Positions from 0 on, and no row beyond its blocks: kernels need not check that."""
    passes = 0

    def look(runner: ModelRunner, spans: Sequence[Span]) -> None:
        nonlocal passes
        passes += 1
        for span in spans:
            assert span.start >= 0
            assert all(span.end <= len(table) * runner.block_size for table in span.tables)

    before_passes(monkeypatch, look)
    for options in ({}, {"max_num_batched_tokens": 1, "max_num_seqs": 1, "block_size": 1}):
        passes = 0
        auto(target, "ngram", max_model_len=max_model_len, **options)
        assert passes


def test_passes_over_more_rows_reach_more_experts(tmp_path: Path) -> None:
    """As those of a text do: time is counted in experts that a pass visits."""
    sizes = QWEN_3_MOE | {"num_experts": 32, "num_experts_per_tok": 2, "num_hidden_layers": 4}
    write_hf(tmp_path, config("Qwen3MoeConfig", **sizes)())
    model = Model(open_checkpoint(str(tmp_path)), exact_backend("torch"))
    visited = 0

    def counted(linear: Any) -> Any:
        def visit(x: Any) -> Any:
            nonlocal visited
            visited += 1
            return linear(x)

        return visit

    for mixture in model.tree.mixtures:
        downs = model.packed(mixture.downs)
        downs[:] = [counted(down) for down in downs]
    runner = ModelRunner(model, num_blocks=80, block_size=8, prefix_caching=False)
    timer = TargetTimer(runner, max_rows=64, max_model_len=512, clock=lambda: float(visited))
    with timer.ready():
        experts = {rows: timer.seconds(rows) / len(model.tree.mixtures) for rows in (1, 4, 16)}
    assert experts[1] == 2
    assert 4 < experts[4] < 8
    assert 12 < experts[16] < 32


def test_a_backend_warms_up_before_costs_are_believed(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes that compile and record are many times slower, and take all the time that there is."""
    backend, passes = exact_backend("torch"), Counter[int]()
    backend.facts = replace(backend.facts, warm_up=3)  # type: ignore[misc]

    def seconds(_: Any, rows: int) -> float:
        passes[rows] += 1
        return rows / 10 if passes[rows] == 3 else 9.0

    monkeypatch.setattr(TargetTimer, "seconds", seconds)
    monkeypatch.setattr(TargetTimer, "attention", lambda timer: (0.0, 0.0))
    model = Model(open_checkpoint(target), backend)
    runner = ModelRunner(model, num_blocks=40, block_size=8, prefix_caching=False)
    found = target_cost(runner, max_rows=8, max_model_len=64, clock=count().__next__)
    assert [found.one_pass(rows) for rows in (2, 8)] == pytest.approx([0.2, 0.8], abs=0.001)


# The file


def costs() -> tuple[TargetCost, list[DraftCost]]:
    target = TargetCost((1, 2, 8), (1e-3, 1.5e-3, 4e-3), position=1e-7, position_row=2e-7, request=3e-5)
    return target, [DraftCost(1e-3, 2e-4, 3e-5, 4e-6), DraftCost(0.0, 0.0)]


def as_json(costs: tuple[TargetCost, list[DraftCost]]) -> list[dict[str, Any]]:
    return [costs[0].as_json(), *(cost.as_json() for cost in costs[1])]


SETTING = {"model": "one", "threads": 2, "drafters": [["ngram", ""]]}


def test_saved_and_loaded_are_equal(cache: Path) -> None:
    file = CostFile(SETTING)
    assert file.load() is None
    file.save(*costs())
    assert file.path.is_relative_to(cache)
    again = CostFile(dict(reversed(SETTING.items()))).load()
    assert again is not None
    assert as_json(again) == as_json(costs())
    assert [path.name for path in file.path.parent.iterdir()] == [file.path.name]


@pytest.mark.parametrize("other", [{"model": "two"}, {"threads": 3}, {"drafters": []}, {"more": None}])
def test_another_setting_has_another_file(other: dict[str, Any]) -> None:
    CostFile(SETTING).save(*costs())
    assert CostFile(SETTING | other).load() is None
    assert CostFile(SETTING | other).path != CostFile(SETTING).path


def damage(file: CostFile, change: Any) -> None:
    contents = json.loads(file.path.read_text())
    change(contents)
    file.path.write_text(json.dumps(contents))


DAMAGES: dict[str, Any] = {
    "another's": lambda c: c["measured_for"].update(model="two"),
    "key missing": lambda c: c["target"].pop("seconds"),
    "key unknown": lambda c: c.update(more=1),
    "negative": lambda c: c["target"]["seconds"].__setitem__(0, -1.0),
    "nan": lambda c: c["drafters"][0].update(fixed=float("nan")),
    "infinite": lambda c: c["target"].update(request=float("inf")),
    "descending": lambda c: c["target"]["counts"].reverse(),
    "one count": lambda c: c["target"].update(counts=[1], seconds=[1.0]),
    "uneven": lambda c: c["target"]["seconds"].pop(),
    "text": lambda c: c["target"].update(position="much"),
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_file_is_told_of_and_not_used(change: Any, caplog: pytest.LogCaptureFixture) -> None:
    file = CostFile(SETTING)
    file.save(*costs())
    damage(file, change)
    with caplog.at_level(logging.WARNING):
        assert file.load() is None
    (record,) = caplog.records
    assert str(file.path) in record.getMessage()
    file.save(*costs())
    assert file.load() is not None


@pytest.mark.parametrize("contents", [b"", b"{", b"\xff\x00", b"[]", b"null", b"{}"])
def test_rubbish_is_told_of_and_not_used(contents: bytes, caplog: pytest.LogCaptureFixture) -> None:
    file = CostFile(SETTING)
    file.save(*costs())
    file.path.write_bytes(contents)
    assert file.load() is None
    assert len(caplog.records) == 1


def test_a_folder_in_place_of_the_file(caplog: pytest.LogCaptureFixture) -> None:
    file = CostFile(SETTING)
    file.path.mkdir(parents=True)
    assert file.load() is None
    file.save(*costs())
    assert len(caplog.records) == 2


def test_too_few_drafters_in_a_file_are_not_used(target: str) -> None:
    """The engine measures, rather than fail."""
    auto(target, "ngram")
    file = only_file()
    contents = json.loads(file.read_text())
    contents["drafters"] = []
    file.write_text(json.dumps(contents))
    assert len(policy_of(auto(target, "ngram")).links) == 1


def test_what_cannot_be_written_is_told_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("where a folder should be")
    file = CostFile(SETTING, tmp_path / "file")
    for _ in range(3):
        file.save(*costs())
    (record,) = caplog.records
    assert "cannot be saved: [Errno" in record.getMessage()


def test_a_write_that_fails_leaves_what_was_there() -> None:
    file = CostFile(SETTING)
    file.save(*costs())
    file.path.with_suffix(".partial").mkdir()
    file.save(TargetCost((1, 2), (1.0, 2.0)), [])
    again = file.load()
    assert again is not None
    assert as_json(again) == as_json(costs())


# The engine and its file


def only_file() -> Path:
    (path,) = (user_cache_path("outrider") / "costs").iterdir()
    return path


def measures(target: str, drafter: Any, **options: Any) -> bool:
    """Whether an engine is measured when it is built: then what was found is written."""
    before = cost_files()
    auto(target, drafter, **options)
    return cost_files() != before


def test_the_second_engine_does_not_measure(target: str) -> None:
    first = policy_of(auto(target, "ngram"))
    before = cost_files()
    second = policy_of(auto(target, "ngram"))
    assert cost_files() == before
    assert as_json((first.target, [x.cost for x in first.links])) == as_json(
        (second.target, [x.cost for x in second.links])
    )
    only_file()


@pytest.mark.parametrize(
    "other",
    [
        {"num_threads": 1},
        {"quantization": "int8"},
        {"dtype": "bfloat16"},
        {"kv_cache_dtype": "bfloat16"},
        {"instruction_set": "portable"},
        {"backend": "torch"},
        {"max_num_batched_tokens": 64},
    ],
    ids=str,
)
def test_another_format_device_or_number_of_threads_is_measured(target: str, other: dict[str, Any]) -> None:
    assert measures(target, "ngram", num_threads=2)
    assert measures(target, "ngram", **({"num_threads": 2} if "backend" not in other else {}) | other)


def test_what_was_measured_in_little_room_is_not_used_with_more(target: str) -> None:
    """Neither many rows nor attention could be timed there."""
    assert measures(target, "ngram", max_model_len=16, kv_cache_memory=2 * BLOCK)
    assert measures(target, "ngram")


def test_another_model_or_drafter_is_measured(target: str, draft: str) -> None:
    for model, drafter in ((target, "ngram"), (draft, "ngram"), (target, draft), (target, ["ngram", draft])):
        assert measures(model, drafter)


def test_a_draft_in_another_format_is_measured(target: str, draft: str) -> None:
    formats = (None, "int8", "int4", "int4")
    assert [measures(target, draft, draft_quantization=each) for each in formats] == [True, True, True, False]
    sizes = (99, 98, 98)
    assert [measures(target, draft, draft_vocab_size=each) for each in sizes] == [True, True, False]
    drafters = ("self:int8", "self:int4", "self:int4")
    assert [measures(target, drafter) for drafter in drafters] == [True, True, False]


def test_another_name_for_the_same_folder_is_the_same_model(target: str) -> None:
    assert measures(target, "ngram")
    assert not measures(str(Path(target).parent / "." / Path(target).name) + "/", "ngram")


def test_a_fixed_length_measures_nothing(target: str, cache: Path) -> None:
    load(target, "ngram", num_speculative_tokens=3)
    load(target)
    assert not cache.exists()


def test_an_engine_with_a_broken_file_works(target: str, caplog: pytest.LogCaptureFixture) -> None:
    auto(target, "ngram")
    only_file().write_text("{")
    engine = auto(target, "ngram")
    assert "measured again" in caplog.text
    one = SamplingParams(temperature=0, max_tokens=8)
    assert token_ids(output_of(engine, PROMPTS[0], one)) == token_ids(expected(target, PROMPTS[0], one))
    assert json.loads(only_file().read_text())["drafters"]


def test_an_engine_that_cannot_write_works(
    target: str, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("where a folder should be")
    engine = auto(target, "ngram")
    assert "cannot be saved" in caplog.text
    assert output_of(engine, PROMPTS[0], SamplingParams(max_tokens=4, seed=1)).finished


# Memory


@pytest.mark.parametrize(("requests", "most"), [(1, 33), (2, 66), (64, 96)])
def test_no_more_rows_are_timed_with_logits_than_a_step_verifies(
    target: str, requests: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of rows; a draft has 16 tokens and their siblings."""
    passes: list[tuple[int, int]] = []

    def look(_: ModelRunner, spans: Sequence[Span]) -> None:
        passes.append((sum(len(s.tokens) for s in spans), sum(s.logit_rows for s in spans)))

    before_passes(monkeypatch, look)
    auto(target, "ngram", max_num_seqs=requests)
    assert max(rows for rows, _ in passes) >= 96
    assert max(with_logits for _, with_logits in passes) == most
    assert all(with_logits == min(rows, most) for rows, with_logits in passes if rows <= 32)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is given back on Linux alone")
def test_an_engine_that_was_timed_holds_no_memory_for_it(
    target: str, draft: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given back reads as zeros, all but part of a page, and what is generated then is the same."""
    close = ModelRunner.close
    held: list[int] = []

    def written(runner: ModelRunner) -> int:
        """Bytes of K in a layer."""
        keys = runner._cache[0].keys
        return int(np.count_nonzero(keys) * keys.itemsize)

    def noted(self: ModelRunner) -> None:
        held.append(written(self))
        close(self)
        held.append(written(self))

    monkeypatch.setattr(ModelRunner, "close", noted)
    engine = auto(target, draft)
    assert len(held) == 4
    assert min(held[::2]) > mmap.PAGESIZE > max(held[1::2])
    one = SamplingParams(temperature=0, max_tokens=8)
    assert token_ids(output_of(engine, PROMPTS[1], one)) == token_ids(expected(target, PROMPTS[1], one))
