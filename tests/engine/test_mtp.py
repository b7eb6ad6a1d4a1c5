"""Drafts of a layer that a checkpoint brings for multi-token prediction (MTP): those that PyTorch makes, and
the same tokens as without them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError, ModelError, SamplingParams, SpeculationStats
from outrider.engine.verify import Judged
from outrider.engine.watcher import Watcher
from tests import planted
from tests.engine.helpers import PROMPTS, load, token_ids
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES
from tests.models.mtp_layers import WITH_MTP, Written, write_gguf_with_mtp, write_with_mtp
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH = 3
LONG = tuple(20 + i * 7 % 200 for i in range(70))
MIX = (*PROMPTS, LONG, LONG[:40])
EXACT: dict[str, Any] = {"dtype": "float32", "enable_prefix_caching": False, "max_num_seqs": 3}
"""Where the layer reads all of a text, as PyTorch does."""
OPTIONS: dict[str, Any] = {"block_size": 4, "prompt_chunk_size": 10, "max_model_len": 120}


@pytest.fixture(scope="module", params=WITH_MTP)
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    return write_with_mtp(tmp_path_factory.mktemp("model"), request.param)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Of one family, where it does not matter of which."""
    return write_with_mtp(tmp_path_factory.mktemp("model"), "qwen3.5")


def built(path: Path | Written, **options: Any) -> LLM:
    name = path.path if isinstance(path, Written) else path
    return load(str(name), "mtp", **OPTIONS | {"num_speculative_tokens": LENGTH} | options)


def generate(llm: LLM, temperature: float = 0.0, **others: Any) -> list[Any]:
    asked = [
        SamplingParams(temperature=temperature, seed=seed, ignore_eos=True, **{"max_tokens": 24} | others)
        for seed in range(len(MIX))
    ]
    return llm.generate(list(MIX), asked, use_tqdm=False)


def statistics(outputs: list[Any]) -> SpeculationStats:
    return sum((output.outputs[0].speculation for output in outputs), SpeculationStats())


@dataclass(eq=False)
class Drafts(Watcher):
    """Each text that was drafted for, with its draft, and how much of that stood."""

    all: list[tuple[tuple[int, ...], tuple[int, ...], int]] = field(default_factory=list)

    def verified(self, judged: Any) -> None:
        each: Judged
        for each in judged:
            if each.draft.tokens:
                text = tuple(each.work.request.tokens)
                self.all.append((text, each.draft.tokens, each.verdict.accepted))


def drafts_of(llm: LLM, **others: Any) -> Drafts:
    """Of greedy texts."""
    llm.engine.watchers.append(watcher := Drafts())
    generate(llm, **others)
    return watcher


def wrong(written: Written, drafts: Drafts, *, every: int = 1) -> int:
    """How many drafts are not PyTorch's, of every n-th."""
    return sum(tuple(written.chain(text, len(draft))) != draft for text, draft, _ in drafts.all[::every])


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_drafts_are_those_of_a_plain_reading(written: Written, backend: str) -> None:
    """Also behind a draft of which a part was rejected, whose rows are gone from the layer's cache; and as
    many of their tokens stand."""
    drafts = drafts_of(built(written, backend=backend, **EXACT), max_tokens=16)
    assert wrong(written, drafts, every=3) == 0
    accepted = [stood for _, _, stood in drafts.all]
    assert {0, LENGTH} <= {*accepted}
    for text, draft, stood in drafts.all[::9]:
        chosen = [int(row.argmax()) for row in written.model.lm_head(written.states([*text, *draft]))]
        agree = [token == chosen[len(text) - 1 + n] for n, token in enumerate(draft)]
        assert stood == (agree.index(False) if False in agree else len(draft))


@pytest.mark.parametrize("fault", ["states", "tokens", "rows"])
def test_planted_faults_are_noticed(one: Written, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant = {
        "states": planted.read_states_of_the_position_before,
        "tokens": planted.read_tokens_a_position_early,
        "rows": planted.keep_rows_of_drafts,
    }
    plant[fault](monkeypatch)
    assert wrong(one, drafts_of(built(one, **EXACT), max_tokens=16)) > 0


@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
def test_same_tokens_cold_and_warm(written: Written, acceptance: str) -> None:
    """Where a rule keeps the tokens; the others draw with the drafts, and are the same from run to run."""
    llm, plain = built(written, acceptance=acceptance), load(str(written.path), enable_prefix_caching=False)
    for temperature in (0.0, 0.8, 0.0):
        outputs = generate(llm, temperature)
        assert statistics(outputs).accepted > 20
        if acceptance == "coupled" or not temperature:
            alone = generate(plain, temperature)
            assert [*map(token_ids, outputs)] == [*map(token_ids, alone)]
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks


def test_forced_preemption(written: Written) -> None:
    with pytest.raises(ConfigError, match="needs kv_cache_memory of") as refused:
        built(written, kv_cache_memory=1, max_num_seqs=8)
    least = int(str(refused.value).split("kv_cache_memory of ")[1].split()[0])
    llm = built(written, kv_cache_memory=least * 4 // 3, max_num_seqs=8)
    recorded = record(llm)
    found = generate(llm, 1.0, max_tokens=40)
    assert any(recorded.preempted)
    alone = generate(load(str(written.path), enable_prefix_caching=False), 1.0, max_tokens=40)
    assert [*map(token_ids, found)] == [*map(token_ids, alone)]


def test_from_a_gguf_file(written: Written, tmp_path: Path) -> None:
    write_gguf_with_mtp(tmp_path / "m.gguf", written)
    outputs = generate(built(tmp_path / "m.gguf"), 0.8)
    assert statistics(outputs).accepted > 20
    alone = generate(load(str(tmp_path / "m.gguf"), enable_prefix_caching=False), 0.8)
    assert [*map(token_ids, outputs)] == [*map(token_ids, alone)]


@pytest.mark.parametrize(
    "options",
    [{"quantization": "int8"}, {"draft_quantization": "int4"}, {"dtype": "bfloat16"}],
    ids=str,
)
def test_at_fewer_bits(one: Written, options: dict[str, Any]) -> None:
    target = {name: value for name, value in options.items() if not name.startswith("draft")}
    outputs = generate(built(one, **options))
    assert statistics(outputs).accepted > 20
    alone = generate(load(str(one.path), enable_prefix_caching=False, **target))
    assert [*map(token_ids, outputs)] == [*map(token_ids, alone)]


def test_beside_n_grams_and_with_a_length_of_its_own(one: Written) -> None:
    llm = LLM(str(one.path), device="cpu", speculative_model=["ngram", "mtp"], **OPTIONS)
    alone = generate(load(str(one.path), enable_prefix_caching=False))
    assert [*map(token_ids, generate(llm))] == [*map(token_ids, alone)]


def test_as_vllm_names_it(one: Written) -> None:
    for method in ("mtp", "qwen3_next_mtp"):
        config = {"method": method, "num_speculative_tokens": 2}
        llm = LLM(str(one.path), device="cpu", speculative_config=config, max_model_len=120)
        assert statistics(generate(llm, max_tokens=8)).drafted > 0


def test_a_model_without_such_a_layer_is_refused(tmp_path: Path) -> None:
    write_hf(tmp_path, FAMILIES["qwen3.5"].config())
    with pytest.raises(ModelError, match="brings no layer for multi-token prediction"):
        built(tmp_path)
