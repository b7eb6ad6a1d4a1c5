"""`speculative_model="auto"`: what it takes, what it leaves out and why, and that no token changes."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from outrider import LLM, ConfigError, ModelError, SamplingParams
from outrider.config import EngineConfig, resolve
from outrider.finding import auto
from outrider.finding.auto import Findings, weighed, with_found
from outrider.models.checkpoint import open_checkpoint
from outrider.planning import drafters
from outrider.speculative_config import LOOKUP
from tests.engine.helpers import PROMPTS
from tests.factories import tiny_config, write_model
from tests.finding.conftest import in_cache, small_model
from tests.models.assistants import TARGETS, target_config, write_assistant
from tests.models.factories import write_hf
from tests.models.families.table import FAMILIES
from tests.models.head_features import random_head
from tests.models.mtp_layers import write_with_mtp


def sought(target: Path | str, **options: Any) -> EngineConfig:
    return resolve(str(target), device="cpu", speculative_model="auto", **options)


def found(target: Path | str, **options: Any) -> tuple[list[str], Findings]:
    """The chain of drafters, and what was found."""
    config, findings = with_found(sought(target, **options))
    assert config.speculative is not None
    assert findings is not None
    return [drafter.name for drafter in config.speculative.drafters], findings


def reasons(findings: Findings) -> dict[str, str]:
    return {Path(finding.candidate.label).name: finding.reason for finding in findings.skipped}


def head_for(path: Path, target: Path) -> Path:
    random_head(path, open_checkpoint(str(target)).config)
    return path


def test_lookup_alone(target_of_four: Path, hub: Path) -> None:
    chain, findings = found(target_of_four)
    assert chain == [LOOKUP.name]
    assert findings.skipped == ()
    assert str(findings) == (
        f"drafters of {target_of_four}: suffix alone, since no head or smaller model that suits it was found"
    )


def test_a_head_in_the_folder_a_head_beside_it_a_model(target_of_four: Path, hub: Path) -> None:
    """Heads before models, one of each, and what is in the target's own folder before what is beside it."""
    model = small_model(target_of_four.with_name("tiny-1l"))
    small_model(target_of_four.with_name("tiny-2l"), layers=2)
    assert found(target_of_four)[0] == ["suffix", str(model)]
    beside = head_for(target_of_four.with_name("tiny-4l-head"), target_of_four)
    assert found(target_of_four)[0] == ["suffix", str(beside), str(model)]
    inside = head_for(target_of_four / "head", target_of_four)
    chain, findings = found(target_of_four)
    assert chain == ["suffix", str(inside), str(model)]
    assert str(findings).endswith(
        f"suffix, then {inside} (EAGLE-3 head beside the target), "
        f"then {model} (draft model beside the target), as int4"
    )


def test_a_model_behind_a_head_is_for_lengths_that_are_chosen(target_of_four: Path, hub: Path) -> None:
    """With a fixed one the head is always asked. A model that drafts text is for where there is no head."""
    head = head_for(target_of_four / "head", target_of_four)
    other = small_model(target_of_four.with_name("tiny-1l"), extra=("<|more|>",))
    chain, findings = found(target_of_four)
    assert chain == ["suffix", str(head)]
    assert "does not share the vocabulary" in reasons(findings)[other.name]
    small_model(target_of_four.with_name("tiny-2l"), layers=2)
    assert len(found(target_of_four)[0]) == 3
    assert found(target_of_four, num_speculative_tokens=3)[0] == ["suffix", str(head)]


def test_memory_is_planned_for_both(target_of_four: Path, hub: Path) -> None:
    """Where it does not do for the model, the head stays; where it does, requests have the context that they
    have alone."""
    head_for(target_of_four / "head", target_of_four)
    small_model(target_of_four.with_name("tiny-1l"), layers=2)
    both = with_found(sought(target_of_four, max_num_seqs=2))[0]
    (head_alone, model) = list(weighed(sought(target_of_four, max_num_seqs=2), every=True))
    assert model.plan is not None
    assert head_alone.plan is not None
    assert model.cost is not None
    assert model.cost.memory == model.plan.fixed - head_alone.plan.fixed > model.cost.weights > 0
    assert both.kv_cache_memory > head_alone.config.kv_cache_memory > sought(target_of_four).kv_cache_memory  # type: ignore[union-attr]
    tight = head_alone.plan.least + (model.plan.least - head_alone.plan.least) // 2
    chain, findings = found(target_of_four, max_num_seqs=2, memory_limit=tight)
    assert chain == ["suffix", str(target_of_four / "head")]
    assert "with the target, and there are" in reasons(findings)["tiny-1l"]


def test_a_draft_whose_output_layer_is_large_says_fewer_words(
    target_of_four: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody has said how many, or it reads hardly less so."""

    def vocab_size(**options: Any) -> int | None:
        config, findings = with_found(sought(target_of_four, **options))
        assert config.speculative is not None
        assert findings is not None
        size = config.speculative.draft_vocab_size
        assert str(findings).endswith(f", as int4, of {size} tokens" if size else ", as int4")
        return size

    small_model(target_of_four.with_name("tiny-1l"))
    assert vocab_size() is None  # it has fewer tokens than that
    monkeypatch.setattr(auto, "LIGHT", 0)
    monkeypatch.setattr(drafters, "MOST_READ", 0)
    monkeypatch.setattr(auto, "LIGHTER", (*auto.LIGHTER[:1], ("draft_vocab_size", 64)))
    assert vocab_size() == 64
    assert vocab_size(draft_vocab_size=200) == 200
    monkeypatch.setattr(drafters, "MOST_READ", 180)
    assert vocab_size() is None


def test_a_draft_that_reads_much_is_quantised(
    target_of_four: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless somebody has said what it is to be, it reads little as it is, or PyTorch computes."""

    def quantization(**options: Any) -> str | None:
        config, findings = with_found(sought(target_of_four, **options))
        assert config.speculative is not None
        assert findings is not None
        assert config.speculative.drafters[-1].name == str(model)
        assert ("as int" in str(findings)) == (config.speculative.draft_quantization is not None)
        return config.speculative.draft_quantization

    model = small_model(target_of_four.with_name("tiny-1l"))
    assert quantization() == "int4"
    assert quantization(draft_quantization="int8") == "int8"
    assert quantization(backend="torch") is None
    monkeypatch.setattr(auto, "LIGHT", 0.9)
    assert quantization() is None
    monkeypatch.setattr(auto, "LIGHT", 0)
    monkeypatch.setattr(auto, "WORTH", 100)
    assert quantization() is None


def test_the_nearest_name_and_then_the_smallest(target_of_four: Path, hub: Path) -> None:
    small_model(target_of_four.with_name("another"))
    small_model(target_of_four.with_name("tiny-2l"), layers=2)
    nearest = small_model(target_of_four.with_name("tiny-1l"))
    assert found(target_of_four)[0] == ["suffix", str(nearest)]


def test_the_hubs_cache(target_of_four: Path, hub: Path, tmp_path: Path) -> None:
    """Its snapshots are opened where they lie; the hub is not asked."""
    model = in_cache(hub, "org/small", small_model(tmp_path / "small"))
    in_cache(hub, "org/other", head_for(tmp_path / "other", target_of_four).parent / "small")
    chain, findings = found(target_of_four)
    assert chain[1] in {str(model), str(model).replace("org--small", "org--other")}
    shutil.rmtree(hub / "models--org--other")
    chain, findings = found(target_of_four)
    assert chain == ["suffix", str(model)]
    assert "org/small (draft model in the hub's cache)" in str(findings)
    head = in_cache(hub, "org/head", head_for(tmp_path / "head", target_of_four))
    assert found(target_of_four)[0] == ["suffix", str(head), str(model)]


def test_a_target_in_the_hubs_cache(target_of_four: Path, hub: Path, tmp_path: Path) -> None:
    """Older snapshots of itself beside it are no drafts."""
    snapshot = in_cache(hub, "org/target", target_of_four)
    older = small_model(tmp_path / "older")
    shutil.copytree(older, snapshot.with_name("1" * 40))
    assert found(snapshot)[0] == ["suffix"]


def test_the_head_in_the_package_is_smollm2s(target_of_four: Path, hub: Path) -> None:
    chain, findings = found("smollm2")
    assert chain == ["suffix", "head"]
    assert "head (EAGLE-3 head in this package)" in str(findings)


def test_another_vocabulary(target_of_four: Path, hub: Path) -> None:
    """What was refused at first is told, and stands as text then."""
    model = small_model(target_of_four.with_name("tiny-1l"), extra=("<|more|>",))
    chain, findings = found(target_of_four)
    assert chain == ["suffix", str(model)]
    assert "draft model of another vocabulary beside the target" in str(findings)
    assert "does not share the vocabulary" in reasons(findings)["tiny-1l"]
    assert "not taken: " in str(findings)
    assert len(str(findings).splitlines()) == 1


def test_what_the_checkpoint_brings_comes_first(tmp_path: Path, hub: Path) -> None:
    """And is not there in others of its family."""
    write_with_mtp(tmp_path / "own" / "m", "qwen3.5")
    head_for(tmp_path / "own" / "m-head", tmp_path / "own" / "m")
    chain, findings = found(tmp_path / "own" / "m")
    assert chain == ["suffix", "mtp"]
    assert str(findings).endswith("then mtp (MTP layer in the target's own files), as int4")
    write_hf(tmp_path / "plain" / "m", FAMILIES["qwen3.5"].config())
    assert found(tmp_path / "plain" / "m")[0] == ["suffix"]


def test_an_assistant(tmp_path: Path, hub: Path) -> None:
    target, assistant = tmp_path / "target", tmp_path / "target-assistant"
    write_assistant(assistant, write_hf(target, target_config(next(iter(TARGETS)))))
    chain, findings = found(target)
    assert chain == ["suffix", str(assistant)]
    assert "assistant beside the target" in str(findings)


def test_another_vocabulary_is_the_last_resort(target_of_four: Path, hub: Path) -> None:
    other = small_model(target_of_four.with_name("tiny-0l"), extra=("<|more|>",))
    config, findings = with_found(sought(target_of_four))
    assert config.speculative is not None
    assert findings is not None
    assert [drafter.name for drafter in config.speculative.drafters] == ["suffix", str(other)]
    assert config.speculative.draft_vocabulary == "text"
    assert "does not share the vocabulary" in reasons(findings)["tiny-0l"]
    params = SamplingParams(max_tokens=24, temperature=0.8, seed=1)
    alone = LLM(str(target_of_four), device="cpu").generate(PROMPTS, params, use_tqdm=False)
    llm = LLM(str(target_of_four), device="cpu", speculative_model="auto", num_speculative_tokens=3)
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in alone]

    same = small_model(target_of_four.with_name("tiny-of-1l"))
    config, _ = with_found(sought(target_of_four))
    assert config.speculative is not None
    assert config.speculative.drafters[-1].model == str(same)
    assert config.speculative.draft_vocabulary == "same"


def test_what_is_skipped_is_followed_by_what_fits(target_of_four: Path, hub: Path, tmp_path: Path) -> None:
    """A head of another target, one that is broken, a file that is none, and a folder that cannot be read."""
    shelf = target_of_four.parent
    other = small_model(tmp_path / "other", layers=3)
    head_for(shelf / "tiny-head-a", other)
    broken = head_for(shelf / "tiny-head-b", target_of_four)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    (shelf / "tiny-1l-q4.gguf").write_bytes(b"GGUF, or so it says")
    (shelf / "notes").mkdir()
    (shelf / "notes" / "config.json").write_text("no JSON")
    model = small_model(shelf / "tiny-1l")
    chain, findings = found(target_of_four)
    assert chain == ["suffix", str(model)]
    said = reasons(findings)
    assert "was not made for the target" in said["tiny-head-a"]
    assert "tiny-head-b" in said
    assert all(said.values())


def test_pickled_heads_without_pytorch(
    target_of_four: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = head_for(target_of_four.with_name("tiny-head"), target_of_four)
    (head / "model.safetensors").rename(head / "pytorch_model.bin")
    monkeypatch.setattr("outrider.extras.find_spec", lambda name: None)
    chain, findings = found(target_of_four)
    assert chain == ["suffix"]
    assert "comes with the extra 'torch'" in reasons(findings)["tiny-head"]


def test_the_target_at_other_bits_is_no_draft(target_of_four: Path, hub: Path) -> None:
    """Though its file is small enough: as many layers of the same width."""
    write_model(
        target_of_four.with_name("tiny-4l-small"), tiny_config(num_hidden_layers=4, intermediate_size=24)
    )
    chain, findings = found(target_of_four)
    assert chain == ["suffix"]
    assert "at other bits" in reasons(findings)["tiny-4l-small"]


def test_too_little_memory(target_of_four: Path, hub: Path) -> None:
    small_model(target_of_four.with_name("tiny-1l"))
    alone = found(target_of_four, memory_limit=2**40)[1]
    assert alone.taken
    chain, findings = found(target_of_four, memory_limit=2**20)
    assert chain == ["suffix"]
    assert "MiB with the target, and there are 1 MiB" in reasons(findings)["tiny-1l"]
    assert len(findings.without_room) == 1


def test_drafts_leave_requests_their_context(target_of_four: Path, hub: Path) -> None:
    """Their cache is had in addition; where the memory for it was named, what takes too much is left out."""
    big = target_of_four.with_name("tiny-1l")
    small_model(big, layers=12)
    config, _ = with_found(sought(target_of_four))
    assert config.kv_cache_memory > 2**30
    named: dict[str, Any] = {"kv_cache_memory": 220_000, "max_num_seqs": 1, "max_model_len": 200}
    chain, findings = found(target_of_four, **named)
    assert chain == ["suffix"]
    assert "raise kv_cache_memory" in reasons(findings)["tiny-1l"]
    assert [drafter.model for drafter in findings.without_room] == [str(big)]
    assert LLM(str(target_of_four), device="cpu", speculative_model="auto", **named).found is not None


def test_a_target_that_cannot_be_opened_says_so_itself(hub: Path, tmp_path: Path) -> None:
    assert found(tmp_path / "nowhere")[0] == ["suffix"]
    with pytest.raises(ModelError, match="does not exist"):
        LLM(str(tmp_path / "nowhere"), speculative_model="auto")


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("kind", ["head", "model", "both"])
def test_the_tokens_are_the_targets(target_of_four: Path, hub: Path, kind: str, temperature: float) -> None:
    """With drafters that guess at random, and a length that they have to reach."""
    if kind != "model":
        head_for(target_of_four / "head", target_of_four)
    if kind != "head":
        small_model(target_of_four.with_name("tiny-1l"))
    length: dict[str, Any] = {"workload": "structured"} if kind == "both" else {"num_speculative_tokens": 3}
    params = [
        SamplingParams(max_tokens=24, temperature=temperature, seed=seed) for seed in range(len(PROMPTS))
    ]
    alone = LLM(str(target_of_four), device="cpu").generate(PROMPTS, params, use_tqdm=False)
    llm = LLM(str(target_of_four), device="cpu", speculative_model="auto", **length)
    assert llm.found is not None
    assert len(llm.found.taken) == 1 + (kind == "both")
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in alone]
    assert sum(output.outputs[0].speculation.drafted for output in outputs) > 0


def test_it_is_logged_in_one_line(target_of_four: Path, hub: Path, caplog: pytest.LogCaptureFixture) -> None:
    small_model(target_of_four.with_name("tiny-1l"))
    with caplog.at_level(logging.INFO, logger="outrider"):
        findings = LLM(str(target_of_four), device="cpu", speculative_model="auto").found
    lines = [record.getMessage() for record in caplog.records if record.name == "outrider.finding.auto"]
    assert lines == [str(findings)]


def test_candidates_say_nothing_while_they_are_looked_at(
    target_of_four: Path, hub: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a checkpoint warns of is told once, when it is loaded."""
    from safetensors.torch import load_file, save_file

    weights = load_file(target_of_four / "model.safetensors")
    save_file(weights | {"mtp.x": next(iter(weights.values())).clone()}, target_of_four / "model.safetensors")
    small_model(target_of_four.with_name("tiny-1l"))
    LLM(str(target_of_four), device="cpu", speculative_model="auto")
    assert sum("further tokens" in record.getMessage() for record in caplog.records) == 1


def test_many_are_not_all_tried(target_of_four: Path, hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("outrider.finding.auto.TRIED", 2)
    for number in range(4):
        config = tiny_config(num_hidden_layers=4, intermediate_size=24)  # the target's size, at other bits
        write_model(target_of_four.with_name(f"tiny-{number}"), config)
    chain, findings = found(target_of_four)
    assert (chain, len(findings.skipped)) == (["suffix"], 2)


def test_none_and_what_goes_with_auto() -> None:
    assert resolve("x", speculative_model="none").speculative is None
    assert resolve("x").speculative is None  # as vLLM has it
    assert with_found(resolve("x"))[1] is None
    for wrong, reason in (
        ({"speculative_model": ["none", "ngram"]}, "'none' drafts nothing; drop it, or 'ngram'"),
        ({"speculative_model": "none", "num_speculative_tokens": 3}, "or num_speculative_tokens"),
        ({"speculative_model": ["ngram", "auto"]}, "'auto' stands for all of them; give it alone"),
    ):
        with pytest.raises(ConfigError, match=reason):
            resolve("x", **wrong)


def test_options_of_speculation_are_kept(target_of_four: Path, hub: Path) -> None:
    given: dict[str, Any] = {
        "draft_quantization": "int8",
        "acceptance": "standard",
        "num_speculative_tokens": 2,
    }
    config, _ = with_found(sought(target_of_four, **given))
    assert config.speculative is not None
    assert config.speculative.draft_quantization is None  # there is no draft whose weights it is for
    assert config.speculative.acceptance == "standard"
    small_model(target_of_four.with_name("tiny-1l"))
    config, findings = with_found(sought(target_of_four, **given))
    assert config.speculative is not None
    assert config.speculative.num_speculative_tokens == 2
    taken = findings is not None and bool(findings.taken)
    assert (config.speculative.draft_quantization == "int8") == taken
