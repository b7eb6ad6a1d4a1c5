"""Outputs fit their grammar, and are the same tokens with speculation and without."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from outrider import LLM, ConfigError, RequestError, SamplingParams
from outrider.batch import RequestsFailed
from outrider.drafting.chain import Chain
from outrider.drafting.head import HeadDrafter
from outrider.engine.request import Request
from outrider.sampling.grammar import GrammarLimits
from outrider.sandbox import grammar_task
from tests import planted
from tests.engine.helpers import BLOCK, PROMPTS, expected, load, token_ids
from tests.fakes import Proposing

EOS = 2
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "tags": {"type": "array", "items": {"enum": ["on", "the end", "é"]}, "maxItems": 3, "minItems": 1},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "tags", "count"],
    "additionalProperties": False,
}
CHOICE = ["the end", "ende", 'a "quoted\\" one\n', "é"]
BIASED = {68: 2.0}  # so that outputs repeat themselves, and drafts of n-grams stand now and then
GRAMMAR = 'root ::= sum\nsum ::= number (" + " number){1,4}\nnumber ::= [0-9] | "(" number " * " number ")"'


def fits_schema(text: str) -> bool:
    value = json.loads(text)
    assert value.keys() == SCHEMA["properties"].keys()  # type: ignore[attr-defined]
    tags = value["tags"]
    return (
        len(value["name"]) <= 6
        and 1 <= len(tags) <= 3
        and set(tags) <= {"on", "the end", "é"}
        and 0 <= value["count"] <= 99
    )


def is_sum(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9()*+ ]+", text)) and isinstance(eval(text), int)


KINDS: dict[str, tuple[dict[str, Any], Callable[[str], Any]]] = {
    "schema": ({"json": SCHEMA}, fits_schema),
    "regex": ({"regex": "[a-c]{3,9}(-[0-9]{2}){1,4}é"}, re.compile(r"[a-c]{3,9}(-[0-9]{2}){1,4}é").fullmatch),
    "choice": ({"choice": CHOICE}, CHOICE.__contains__),
    "grammar": ({"grammar": GRAMMAR}, is_sum),
}


@pytest.fixture(scope="module", params=["ngram", "draft", "head", "chain", "standard", "block"])
def llm(request: pytest.FixtureRequest, target: str, draft: str, head: str) -> LLM:
    """Drafters, and the other acceptance rules; few blocks, so that some requests are preempted."""
    few: dict[str, Any] = {"kv_cache_memory": 30 * BLOCK, "max_model_len": 200, "num_speculative_tokens": 4}
    match request.param:
        case "ngram":
            return load(target, "ngram", **few)
        case "draft":
            return load(target, draft, **few)
        case "head":
            return load(target, head, **few)
        case "chain":
            return load(target, speculative_model=["ngram", head], prompt_lookup_min=1, **few)
        case rule:
            return load(target, draft, acceptance=rule, **few)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_outputs_fit_and_are_the_same(target: str, llm: LLM, kind: str, temperature: float) -> None:
    wanted, fits = KINDS[kind]
    params = SamplingParams(
        structured_outputs=of(wanted), temperature=temperature, seed=5, n=2, max_tokens=90, logit_bias=BIASED
    )
    speculative = llm.config.speculative
    assert speculative is not None
    outputs = llm.generate(list(PROMPTS[1:4]), params, use_tqdm=False)
    for prompt, output in zip(PROMPTS[1:4], outputs, strict=True):
        if speculative.acceptance == "coupled":
            assert token_ids(output) == token_ids(expected(target, prompt, params))
        for completion in output.outputs:
            if completion.finish_reason == "stop":
                assert fits(completion.text), completion.text
                assert completion.token_ids[-1] == EOS
    assert any(c.finish_reason == "stop" for output in outputs for c in output.outputs)
    if (kind, speculative.drafters[0].method) != ("choice", "ngram"):  # which is too short to repeat itself
        assert sum(c.speculation.accepted for output in outputs for c in output.outputs) > 0


def of(wanted: dict[str, Any]) -> Any:
    """As a user may write it: SamplingParams takes a mapping as well."""
    return wanted


def test_json_object(target: str) -> None:
    """With a bias for what closes it, since a random model would not come to an end."""
    llm = load(target, "ngram", num_speculative_tokens=3)
    close = {llm.tokenizer.encode(text)[0]: 8.0 for text in ("}", '"')}
    params = SamplingParams(
        structured_outputs=of({"json_object": True}), max_tokens=60, logit_bias=close, seed=1
    )
    (output,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
    assert isinstance(json.loads(output.outputs[0].text), dict)
    assert token_ids(output) == token_ids(expected(target, PROMPTS[0], params))


def test_a_schema_may_be_text(target: str) -> None:
    texts = [
        load(target).generate(
            PROMPTS[0], SamplingParams(structured_outputs=of(w), temperature=0, max_tokens=30)
        )
        for w in ({"json": SCHEMA}, {"json": json.dumps(SCHEMA)})
    ]
    assert texts[0][0].outputs[0].token_ids == texts[1][0].outputs[0].token_ids


FORCED = {"regex": "(begin: one|and then): [a-c]{3} (is the end of all of it)!"}


@pytest.mark.parametrize("rule", ["coupled", "standard", "block"])
def test_what_a_grammar_forces_is_drafted(target: str, rule: str) -> None:
    """Also where the drafter has nothing to offer, and for one who wants no more than two tokens."""
    llm = load(target, "ngram", num_speculative_tokens=3, acceptance=rule)
    llm.engine.drafters = Chain([Proposing()])
    # Single bytes are what the tokenizer makes of most of it.
    bias = dict.fromkeys(llm.tokenizer.encode("is the end of all of it"), 30.0)
    for length, longest in ((None, 16), (2, 2), (0, 0)):
        params = SamplingParams(
            structured_outputs=of(FORCED),
            seed=1,
            max_tokens=60,
            logit_bias=bias,
            num_speculative_tokens=length,
        )
        (output,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
        (completion,) = output.outputs
        assert re.fullmatch(FORCED["regex"], completion.text)
        assert len(completion.speculation.drafted_by_position) == longest
        assert (completion.speculation.accepted > 0) is (longest > 0)
        if rule == "coupled":
            assert token_ids(output) == token_ids(expected(target, PROMPTS[0], params))


@pytest.mark.parametrize("chain", [["head"], ["ngram", "head"]])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_head_reads_the_states_of_what_is_forced(
    target: str, head: str, chain: list[str], temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same ones as in plain decoding, bit for bit, though it was not asked in those steps."""
    states: list[Any] = []
    ends: list[int] = []

    def read(self: HeadDrafter, request: Request, first: int, computed: Any) -> None:
        assert first == sum(map(len, states))  # without a gap
        states.append(computed.copy())
        sound(self, request, first, computed)

    def begin(self: HeadDrafter, request: Request, budget: Any) -> Any:
        ends.append(len(request.tokens))
        begun = start(self, request, budget)
        assert begun is not None
        return begun

    sound, start = HeadDrafter.read, HeadDrafter._begin
    monkeypatch.setattr(HeadDrafter, "read", read)
    monkeypatch.setattr(HeadDrafter, "_begin", begin)
    llm = load(
        target,
        speculative_model=[head if name == "head" else name for name in chain],
        prompt_lookup_min=1,
        num_speculative_tokens=4,
        enable_prefix_caching=False,
    )
    stiff = {"x-guidance": {"whitespace_flexible": False}}
    params = SamplingParams(
        structured_outputs=of({"json": SCHEMA | stiff}), temperature=temperature, seed=3, max_tokens=90
    )
    expected_ids = token_ids(expected(target, PROMPTS[1], params))
    told = []
    for length in (None, 0):
        states.clear()
        (output,) = llm.generate(
            PROMPTS[1], params.model_copy(update={"num_speculative_tokens": length}), use_tqdm=False
        )
        assert token_ids(output) == expected_ids
        told.append(np.concatenate(states))
        if length is None:
            stats = output.outputs[0].speculation
            assert len(stats.drafted_by_position) > 4  # as no drafter may
            assert sum(stats.accepted_by_position[4:]) > 0
            assert max(ends) > len(PROMPTS[1]) + 4  # the head was asked after that
    one, other = (each[: min(map(len, told))] for each in told)
    assert np.array_equal(one, other)


def test_without_speculation_nothing_is_drafted(target: str) -> None:
    params = SamplingParams(structured_outputs=of(FORCED), temperature=0, max_tokens=60)
    (output,) = load(target).generate(PROMPTS[0], params, use_tqdm=False)
    assert output.outputs[0].speculation.drafted == 0


def test_drafts_stay_in_the_grammar(target: str) -> None:
    """What a drafter proposes beyond it is not verified."""
    llm = load(target, "ngram", num_speculative_tokens=4)
    good = llm.tokenizer.encode("ab")
    llm.engine.drafters = Chain([Proposing((*good, 200, 201))])
    params = SamplingParams(structured_outputs=of({"regex": "[ab]{40}"}), temperature=0, max_tokens=80)
    (output,) = llm.generate(PROMPTS[0], params, use_tqdm=False)
    assert re.fullmatch("[ab]{40}", output.outputs[0].text)
    stats = output.outputs[0].speculation
    assert len(stats.drafted_by_position) == 2
    assert token_ids(output) == token_ids(expected(target, PROMPTS[0], params))


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({}, "structured outputs with nothing: give exactly one of json, json_object, regex, choice"),
        ({"regex": "a", "choice": ["b"]}, "structured outputs with regex and choice: give exactly one"),
        ({"regexp": "a"}, "regexp"),
        ({"choice": []}, "choice"),
        ({"choice": [""]}, "choice"),
    ],
)
def test_bad_parameters(wanted: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(reason)):
        SamplingParams(structured_outputs=of(wanted))


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ({"regex": "("}, "structured_outputs.regex cannot be used: .*unclosed group"),
        ({"json": {"type": "foo"}}, "structured_outputs.json cannot be used: Invalid type: foo"),
        ({"json": nested(300)}, "structured_outputs.json cannot be used"),
        ({"json": nested(20_000)}, "structured_outputs.json cannot be used"),
        ({"regex": "(" * 10_000 + ")" * 10_000}, "structured_outputs.regex cannot be used"),
        ({"grammar": "start: " + "(" * 10_000}, "structured_outputs.grammar cannot be used"),
        ({"json": {"$ref": "http://127.0.0.1:9/x.json"}}, "structured_outputs.json cannot be used"),
        ({"json": "{"}, "structured_outputs.json cannot be used"),
        ({"grammar": "start: foo"}, "structured_outputs.grammar cannot be used: .*unknown name"),
    ],
)
def test_grammars_that_cannot_be_used(target: str, wanted: dict[str, Any], reason: str) -> None:
    llm = load(target)
    with pytest.raises(RequestError, match=reason):
        llm.generate(PROMPTS[0], SamplingParams(structured_outputs=of(wanted)), use_tqdm=False)
    assert not llm.engine.unfinished


def test_what_excludes_a_grammar(target: str) -> None:
    with pytest.raises(ConfigError, match="ignore_eos = True with structured_outputs"):
        SamplingParams(structured_outputs=of({"regex": "a"}), ignore_eos=True)
    params = SamplingParams(structured_outputs=of({"choice": ["he"]}), min_tokens=5)
    with pytest.raises(RequestError, match="leave no token to choose"):
        load(target).generate(PROMPTS[0], params, use_tqdm=False)


def test_a_step_that_only_waits_reports_nothing(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever adds reports up would count the step before once more."""
    engine = load(target).engine
    request_id = engine.add(PROMPTS[0], SamplingParams(structured_outputs=of({"regex": "[a-z]{20,}"})))
    engine.step()
    assert engine.report.whole > 0
    planted.keep_grammars_waiting(monkeypatch)
    assert engine.step() == []
    assert engine.report.whole == engine.report.verifying == engine.report.drafting == 0
    engine.discard(request_id)


def test_who_runs_into_a_limit_ends_alone(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All share a lexer, which is spoilt then; the others go on with one compiled beside the steps."""
    compiling: list[str] = []

    def compiled(*of: Any) -> Any:
        compiling.append(threading.current_thread().name)
        return sound(*of)

    sound = grammar_task.matcher_of
    monkeypatch.setattr(grammar_task, "matcher_of", compiled)
    llm = load(target, "ngram", num_speculative_tokens=3)
    llm.engine.grammars.limits = GrammarLimits(tried=1, lexer_fuel=40)
    a, b = llm.tokenizer.encode("ab")
    wanted = of({"regex": "b{30}|a[ab]*(a|b)[ab]{6}(x|y)[ab]*z"})
    paths = [
        SamplingParams(structured_outputs=wanted, temperature=0, max_tokens=40, logit_bias={token: 100.0})
        for token in (b, a, b)
    ]
    with pytest.raises(RequestsFailed) as failed:
        llm.generate([PROMPTS[0]] * 3, paths, use_tqdm=False)
    assert failed.value.errors.keys() == {1}
    assert "leave no token to choose" in failed.value.errors[1]
    outputs = [output for output in failed.value.outputs if output is not None]
    assert [outputs[n].outputs[0].text for n in (0, 2)] == ["b" * 30] * 2
    assert compiling[0] == threading.current_thread().name  # before it was queued
    assert set(compiling[1:]) == {"outrider-aside"}
