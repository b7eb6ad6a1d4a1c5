"""Draft models of another vocabulary: the same tokens as the target alone, and drafts that stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from outrider import LLM, ModelError, SamplingParams, SpeculationStats
from outrider.config import resolve
from outrider.drafting.model import ModelDrafter
from outrider.drafting.text import Transcript, Translation
from outrider.drafting.text_drafter import TextDrafter
from tests.engine.helpers import BLOCK, PROMPTS, drafters_of, expected, load, token_ids
from tests.factories import tiny_config, write_model
from tests.models.factories import write_hf
from tests.models.families.table import LFM_2, config
from tests.tokenizers_of_kinds import KINDS, of_bytes
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

END, SIZE = ("<|im_end|>",), 257
TEMPERATURES = (0.0, 0.7, 1.0)
WHOLE: dict[str, Any] = {"vocab_size": SIZE, "eos_token_id": SIZE - 1}
MODELS = {
    "llama": config("LlamaConfig", **WHOLE),
    "a window": config("MistralConfig", sliding_window=12, **WHOLE),
    "states": config("Lfm2Config", **LFM_2, **WHOLE),
}


def text_llm(target: str, draft: str, **options: Any) -> LLM:
    return load(target, draft, draft_vocabulary="text", **options)


def requests(temperature: float, **others: Any) -> list[SamplingParams]:
    return [
        SamplingParams(temperature=temperature, seed=seed, **{"max_tokens": 24, "ignore_eos": True} | others)
        for seed in range(len(PROMPTS))
    ]


def speculation(outputs: list[Any]) -> SpeculationStats:
    return sum((output.outputs[0].speculation for output in outputs), SpeculationStats())


@pytest.fixture(scope="module", params=MODELS)
def renamed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A target, and the same model with its tokens in another order. Each byte is a token."""
    return write_renamed(tmp_path_factory.mktemp("renamed"), request.param)


def write_renamed(path: Path, kind: str) -> tuple[str, str]:
    target, draft = path / "target", path / "draft"
    model = write_hf(target, MODELS[kind]())
    of_bytes(END).save(target)
    state = {
        name: torch.cat([value[:256].flip(0), value[256:]]) if len(value) == SIZE else value
        for name, value in model.state_dict().items()
    }
    twin = type(model)(model.config)
    twin.load_state_dict(state)
    twin.save_pretrained(draft)
    of_bytes(END, reverse=True).save(draft)
    return str(target), str(draft)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Another random model, with words of its own."""
    path = tmp_path_factory.mktemp("other")
    made = KINDS["llama, prepend"]()
    write_model(path, tiny_config(vocab_size=len(made), eos_token_id=made.eos_token_id), seed=3)
    made.save(path)
    return str(path)


# The same model under other names


@pytest.mark.parametrize("length", [1, 2, 5])
def test_every_token_of_the_same_model_stands(renamed: tuple[str, str], length: int) -> None:
    """In a batch, whatever was accepted before: anything that is off by one at the seam would fall."""
    llm = text_llm(*renamed, num_speculative_tokens=length)
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, TextDrafter)
    outputs = llm.generate(PROMPTS, requests(0.0), use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests(0.0), outputs, strict=True):
        assert token_ids(output) == token_ids(expected(renamed[0], prompt, one))
    stats = speculation(outputs)
    assert stats.accepted == stats.drafted
    assert stats.drafted >= 0.7 * 24 * len(PROMPTS) * length / (length + 1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("length", [3, "auto"])
def test_the_same_tokens(renamed: tuple[str, str], temperature: float, length: Any) -> None:
    llm = text_llm(*renamed, num_speculative_tokens=length)
    outputs = llm.generate(PROMPTS, requests(temperature), use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests(temperature), outputs, strict=True):
        assert token_ids(output) == token_ids(expected(renamed[0], prompt, one))


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_same_tokens_under_preemption(tmp_path: Path, temperature: float) -> None:
    target, draft = write_renamed(tmp_path, "llama")
    options: dict[str, Any] = {"max_model_len": 192, "max_num_seqs": 8, "kv_cache_memory": 12 * 2 * BLOCK}
    llm = text_llm(target, draft, num_speculative_tokens=3, **options)
    recorded = record(llm)
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(8)]
    params = [SamplingParams(temperature=temperature, seed=seed, max_tokens=70) for seed in range(8)]
    outputs = llm.generate(prompts, params, use_tqdm=False)
    assert any(recorded.preempted)
    for prompt, one, output in zip(prompts, params, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, TextDrafter)
    for pool in (llm.engine.target.pool, drafter.runner.pool):
        assert pool.num_free == pool.num_blocks


def test_confidences_are_learnt(tmp_path: Path) -> None:
    """'auto' asks a price, and finds that all stands."""
    target, draft = write_renamed(tmp_path, "llama")
    llm = text_llm(target, draft)
    outputs = llm.generate(PROMPTS * 3, requests(0.0, max_tokens=60) * 3, use_tqdm=False)
    stats = speculation(outputs)
    assert stats.accepted == stats.drafted
    (link,) = llm.engine.scheduler.policy.links  # type: ignore[attr-defined]
    assert link.forecast.informed == (stats.drafted > 0)


# Another model


@pytest.mark.parametrize(
    ("backend", "temperature"), [*(("native", each) for each in TEMPERATURES), ("torch", 0.7)]
)
def test_another_model(target: str, other: str, backend: Any, temperature: float) -> None:
    """It is seldom right, and its tokens seldom end where the target's do."""
    llm = text_llm(target, other, num_speculative_tokens=4, backend=backend)
    plain = load(target, backend=backend)
    params = requests(temperature)
    outputs, alone = (one.generate(PROMPTS, params, use_tqdm=False) for one in (llm, plain))
    assert [token_ids(output) for output in outputs] == [token_ids(output) for output in alone]
    assert speculation(outputs).drafted > 0


@pytest.mark.parametrize(
    "others",
    [
        {"repetition_penalty": 1.3, "frequency_penalty": 0.4},
        {"logit_bias": {40: 5.0}, "min_tokens": 6, "ignore_eos": False},
        {"stop": ["a"], "ignore_eos": False},
        {"logprobs": 2, "trace_drafts": True},
        {"structured_outputs": {"regex": "[a-f]{2,20}"}, "ignore_eos": False},
    ],
    ids=str,
)
def test_parameters_that_name_the_targets_tokens(target: str, other: str, others: dict[str, Any]) -> None:
    llm = text_llm(target, other, num_speculative_tokens=3)
    params = requests(0.7, **others)
    outputs = llm.generate(PROMPTS, params, use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, params, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))


@pytest.mark.parametrize("acceptance", ["standard", "block"])
def test_rules_that_ask_what_a_draft_was_drawn_from(renamed: tuple[str, str], acceptance: str) -> None:
    """It is a guess, all mass on its tokens. Greedily there is one answer."""
    llm = text_llm(*renamed, num_speculative_tokens=3, acceptance=acceptance)
    outputs = llm.generate(PROMPTS, requests(0.0), use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests(0.0), outputs, strict=True):
        assert token_ids(output) == token_ids(expected(renamed[0], prompt, one))
    assert speculation(outputs).accepted > 0
    llm.generate(PROMPTS, requests(1.0), use_tqdm=False)


def test_behind_another_drafter(target: str, other: str) -> None:
    llm = load(
        target,
        None,
        speculative_model=["ngram", other],
        draft_vocabulary="text",
        prompt_lookup_min=1,
        num_speculative_tokens=3,
    )
    outputs = llm.generate(PROMPTS, requests(0.7), use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests(0.7), outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))


def test_draft_quantization(tmp_path: Path) -> None:
    target, draft = write_renamed(tmp_path, "llama")
    llm = text_llm(target, draft, num_speculative_tokens=3, draft_quantization="int8")
    outputs = llm.generate(PROMPTS, requests(0.0), use_tqdm=False)
    assert speculation(outputs).accepted > 0


# What is chosen


def test_without_being_told_it_is_refused(target: str, other: str) -> None:
    with pytest.raises(ModelError, match=r"does not share the vocabulary .* draft_vocabulary = 'text'$"):
        load(target, other)


def test_a_draft_of_the_same_vocabulary_drafts_tokens(target: str, draft: str) -> None:
    """Whose noise is coupled, which text cannot have."""
    (drafter,) = drafters_of(text_llm(target, draft, num_speculative_tokens=3))
    assert isinstance(drafter, ModelDrafter)
    assert not isinstance(drafter, TextDrafter)


def test_a_tokenizer_that_changes_text_is_refused(target: str, other: str, tmp_path: Path) -> None:
    path = tmp_path / "lower"
    path.mkdir()
    for each in Path(other).iterdir():
        (path / each.name).write_bytes(each.read_bytes())
    file = path / "tokenizer.json"
    plain = '"normalizer":{"type":"Sequence","normalizers":['
    text = "".join(line.strip() for line in file.read_text(encoding="utf-8").splitlines()).replace(": ", ":")
    assert plain in text
    file.write_text(text.replace(plain, plain + '{"type":"Lowercase"},'), encoding="utf-8")
    with pytest.raises(ModelError, match="its normalizer Lowercase changes a text; choose a draft with"):
        text_llm(target, str(path))


def test_vllms_name_for_it() -> None:
    given = {"method": "draft_model", "model": "d", "num_speculative_tokens": 3}
    ours = resolve("m", speculative_config={**given, "draft_vocabulary": "text"})
    assert resolve("m", speculative_config={**given, "use_heterogeneous_vocab": True}) == ours
    assert ours.speculative is not None
    assert ours.speculative.draft_vocabulary == "text"
    with pytest.warns(UserWarning, match="use_heterogeneous_vocab"):
        same = resolve("m", speculative_config={**given, "use_heterogeneous_vocab": False})
    assert same == resolve("m", speculative_config=given)


# Planted faults


@pytest.mark.parametrize("fault", ["reads a token less", "begins a byte too late"])
def test_an_error_of_one_at_the_seam_costs_all_drafts_and_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """In the case in which all drafts stand, see above."""
    if fault == "reads a token less":
        add = Transcript.add
        monkeypatch.setattr(Transcript, "add", lambda self, tokens: add(self, [*tokens][:-1]))
    else:
        behind = Translation._behind
        monkeypatch.setattr(Translation, "_behind", lambda self, seam, text: behind(self, seam, text[1:]))
    target, draft = write_renamed(tmp_path, "llama")
    llm = text_llm(target, draft, num_speculative_tokens=5)
    outputs = llm.generate(PROMPTS, requests(0.0), use_tqdm=False)
    for prompt, one, output in zip(PROMPTS, requests(0.0), outputs, strict=True):
        assert token_ids(output) == token_ids(expected(target, prompt, one))
    stats = speculation(outputs)
    assert stats.accepted < 0.1 * stats.drafted
