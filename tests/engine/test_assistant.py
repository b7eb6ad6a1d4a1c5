"""An assistant that reads the target's K and V gives the target's tokens, however requests come and go."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from outrider import LLM, ConfigError, ModelError, SamplingParams, SpeculationStats
from outrider.drafting.assistant import AssistantDrafter, InPlace
from outrider.models import assistant, assistant_checkpoint
from outrider.models.parts import Block
from outrider.ops.cpu import extension
from outrider.ops.span import Span
from tests.engine.helpers import PROMPTS, drafters_of, expected, load, token_ids
from tests.models.assistants import (
    TARGETS,
    read_assistant,
    reference_draft,
    target_config,
    write_assistant,
)
from tests.models.factories import write_hf
from tests.watchers import record

pytestmark = pytest.mark.usefixtures("one_thread")

BLOCK_SIZE, LENGTH = 4, 3
LONG = tuple(20 + i * 7 % 200 for i in range(70))
MIX = (LONG, *PROMPTS[:2], LONG[:40], LONG[:41], *PROMPTS[3:])
OPTIONS: dict[str, Any] = {
    "block_size": BLOCK_SIZE,
    "max_model_len": 160,
    "num_speculative_tokens": LENGTH,
    "prompt_chunk_size": 10,
}


@pytest.fixture(scope="module", params=TARGETS)
def models(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A target, an assistant that is often right, and one that seldom is."""
    path = tmp_path_factory.mktemp("models")
    model = write_hf(path / "target", target_config(request.param))
    write_assistant(path / "echo", model, echo=True)
    write_assistant(path / "random", model)
    return {name: str(path / name) for name in ("target", "echo", "random")}


def params(temperature: float, seed: int, **others: Any) -> SamplingParams:
    return SamplingParams(temperature=temperature, seed=seed, ignore_eos=True, **{"max_tokens": 24} | others)


def run(llm: LLM, requests: list[SamplingParams]) -> list[Any]:
    return llm.generate(MIX, requests, use_tqdm=False)


def total(outputs: list[Any]) -> SpeculationStats:
    return sum((o.outputs[0].speculation for o in outputs), SpeculationStats())


@pytest.mark.parametrize("name", ["echo", "random"])
def test_same_tokens_in_a_batch(models: dict[str, str], name: str) -> None:
    """With beginnings of prompts from the prefix cache, too: the second round finds them."""
    llm = load(models["target"], models[name], max_num_seqs=3, **OPTIONS)
    for temperature in (0.0, 0.8):
        requests = [params(temperature, seed) for seed in range(len(MIX))]
        outputs = run(llm, requests)
        for prompt, request, output in zip(MIX, requests, outputs, strict=True):
            assert token_ids(output) == token_ids(expected(models["target"], prompt, request))
        assert total(outputs).drafted > len(MIX) * LENGTH
        assert (name == "random") or total(outputs).accepted > 5
    assert sum(output.num_cached_tokens for output in outputs) > 20


@pytest.mark.parametrize("models", ["gemma4-small"], indirect=True)
def test_same_tokens_on_pytorch(models: dict[str, str]) -> None:
    llm = load(models["target"], models["echo"], backend="torch", **OPTIONS)
    request = params(0.0, 1, max_tokens=16)
    drafted = llm.generate(MIX[1:4], request, use_tqdm=False)
    plain = request.model_copy(update={"num_speculative_tokens": 0})
    assert list(map(token_ids, drafted)) == list(
        map(token_ids, llm.generate(MIX[1:4], plain, use_tqdm=False))
    )
    assert total(drafted).accepted > 0


def least(models: dict[str, str], **options: Any) -> int:
    """Bytes of the cache without which no engine is built."""
    with pytest.raises(ConfigError, match="needs kv_cache_memory of") as refused:
        load(models["target"], models["echo"], kv_cache_memory=1, **OPTIONS, **options)
    found = re.search(r"of (\d+) bytes at least", str(refused.value))
    assert found is not None
    return int(found[1])


def test_same_tokens_after_preemption(models: dict[str, str]) -> None:
    memory = least(models, max_num_seqs=8) * 4 // 3
    llm = load(models["target"], models["echo"], max_num_seqs=8, kv_cache_memory=memory, **OPTIONS)
    recorded = record(llm)
    requests = [params(1.0, seed, max_tokens=40) for seed in range(len(MIX))]
    for prompt, request, output in zip(MIX, requests, run(llm, requests), strict=True):
        assert token_ids(output) == token_ids(expected(models["target"], prompt, request))
    assert any(recorded.preempted)
    assert all(pool.num_free == pool.num_blocks for pool in llm.engine.target.pool.all)


def wrong_drafts(models: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[int, int]:
    """How many drafts of an engine were not transformers', and of how many. Requests come at different
    times."""
    reference = AutoModelForCausalLM.from_pretrained(models["target"], attn_implementation="eager")
    own = read_assistant(models[name])
    sound, seen = AssistantDrafter.draft, list[tuple[list[int], tuple[int, ...]]]()

    def draft(self: AssistantDrafter, requests: Any, budgets: Any) -> Any:
        drafts = sound(self, requests, budgets)
        seen.extend((list(r.tokens), d.tokens) for r, d in zip(requests, drafts, strict=True) if d.tokens)
        return drafts

    monkeypatch.setattr(AssistantDrafter, "draft", draft)
    llm = load(models["target"], models[name], max_num_seqs=2, **OPTIONS)
    llm.generate(MIX[:4], params(0.0, 0, max_tokens=8), use_tqdm=False)
    wrong = 0
    for tokens, drafted in seen:
        found = reference_draft(reference, own, tokens, len(drafted))
        wrong += drafted != tuple(int(one.logits.argmax()) for one in found)
    return wrong, len(seen)


@pytest.mark.parametrize("name", ["echo", "random"])
def test_drafts_are_those_of_transformers(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """In batches, after drafts that fell in part, and behind the window."""
    wrong, count = wrong_drafts(models, monkeypatch, name)
    assert not wrong
    assert count > 10


def reads_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft sees the place of its first token too, where that of the last draft may lie."""
    sound = InPlace._span

    def far(self: InPlace, tokens: Any, *, logits: bool) -> Span:
        span = sound(self, tokens, logits=logits)
        return replace(span, start=span.start + 1)

    monkeypatch.setattr(InPlace, "_span", far)


def turns_with_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row turns as the place that it reads from, and not as the token that it stands for."""
    sound = assistant_checkpoint._beside

    def still(block: Block) -> Block:
        made = sound(block)
        mixer: Any = made.attention.mixer
        shape = replace(mixer.shape, rope=replace(mixer.shape.rope, ahead=0))
        return replace(made, attention=replace(made.attention, mixer=replace(mixer, shape=shape)))

    monkeypatch.setattr(assistant_checkpoint, "_beside", still)


def keeps_the_first_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it goes on from is not the state of the last token that stood."""
    sound = AssistantDrafter.read

    def read(self: AssistantDrafter, request: Any, first: int, states: Any) -> None:
        sound(self, request, first + len(states) - 1, states[:1])

    monkeypatch.setattr(AssistantDrafter, "read", read)


def reads_what_a_layer_has_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees the K and V of the first layer that attends as far, and not of the last."""
    sound = assistant._source
    monkeypatch.setattr(
        assistant, "_source", lambda shape, target, own: target.index(target[sound(shape, target, own)])
    )


@pytest.mark.parametrize("models", ["gemma4-small"], indirect=True)
@pytest.mark.parametrize(
    "fault",
    [reads_too_far, turns_with_the_place, keeps_the_first_state, reads_what_a_layer_has_of_the_first],
)
def test_planted_faults_are_caught(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fault(monkeypatch)
    wrong, _ = wrong_drafts(models, monkeypatch, "random")
    assert wrong


def test_what_parameters_do_holds_for_drafts_too(models: dict[str, str]) -> None:
    """Drafts that go on token by token, siblings of unsure tokens, and lengths of their own."""
    llm = load(models["target"], models["echo"], **OPTIONS | {"num_speculative_tokens": "auto"})
    of_requests: tuple[dict[str, Any], ...] = (
        {"repetition_penalty": 1.3},
        {"bad_words": ["he"], "min_tokens": 9},
        {"num_speculative_tokens": 5},
        {"num_speculative_tokens": 0},
        {"logprobs": 2},
        {"n": 2},
        {},
    )
    requests = [params(0.7, seed, **others) for seed, others in enumerate(of_requests)]
    for prompt, request, output in zip(MIX, requests, run(llm, requests), strict=True):
        assert token_ids(output) == token_ids(expected(models["target"], prompt, request))


@pytest.mark.parametrize("models", ["gemma4-small"], indirect=True)
@pytest.mark.parametrize("rule", ["standard", "block"])
def test_other_rules_of_acceptance(models: dict[str, str], rule: str) -> None:
    llm = load(models["target"], models["echo"], acceptance=rule, **OPTIONS)
    outputs = run(llm, [params(0.0, seed) for seed in range(len(MIX))])
    for prompt, output in zip(MIX, outputs, strict=True):
        assert token_ids(output) == token_ids(expected(models["target"], prompt, params(0.0, 0)))
    assert total(outputs).accepted > 5


def test_one_draft_crosses_into_native_code_once(
    models: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(models["target"], models["echo"], **OPTIONS)
    native, calls = extension.require(), list[int]()
    sound = native.draft

    def draft(*args: Any) -> Any:
        calls.append(1)
        return sound(*args)

    monkeypatch.setattr(native, "draft", draft)
    llm.generate(PROMPTS[0], params(0.0, 0), use_tqdm=False)
    (drafter,) = drafters_of(llm)
    assert isinstance(drafter, AssistantDrafter)
    assert 0 < len(calls) <= 24


def test_a_target_of_another_family_is_refused(models: dict[str, str], target: str) -> None:
    with pytest.raises(ModelError, match="was not made for this target"):
        load(target, models["random"], **OPTIONS)
