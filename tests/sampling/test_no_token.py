"""A model whose logits cannot be chosen from ends the request that meets them, and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForCausalLM

from outrider import LLM, RequestsFailed, SamplingParams
from tests.engine.helpers import load, token_ids
from tests.factories import tiny_config, tiny_tokenizer, write_model

BAD = 100  # the token whose embedding is not finite
PROMPTS = [[BAD], [10, 20, 30], list(range(40, 90)), [7, 8, BAD, 7, 8], [5, 6, 7, 5, 6, 7, 5, 6]]
GOOD = [1, 2, 4]
CAUSES = {"NaN": torch.nan, "inf": torch.inf}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Models that are never led to BAD by themselves, by the value that its embedding holds."""
    paths = {}
    for name, value in CAUSES.items():
        path = tmp_path_factory.mktemp(name)
        model = write_model(path)
        with torch.no_grad():
            model.model.embed_tokens.weight[BAD, 3] = value
        save(path, model)
        paths[name] = str(path)
    return paths


def save(path: Path, model: LlamaForCausalLM) -> None:
    model.save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)


def params(temperature: float, **more: Any) -> SamplingParams:
    return SamplingParams(
        temperature=temperature, max_tokens=12, ignore_eos=True, seed=3, logit_bias={BAD: -100}, **more
    )


def generate(llm: LLM, wanted: SamplingParams) -> tuple[list[Any], str]:
    with pytest.raises(RequestsFailed) as caught:
        llm.generate(PROMPTS, wanted, use_tqdm=False)
    assert not llm.engine.unfinished
    return list(caught.value.outputs), str(caught.value)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("cause", CAUSES)
def test_only_the_request_that_meets_them_ends(
    broken: dict[str, str], cause: str, temperature: float, acceptance: str, backend: str, draft: str
) -> None:
    """With NaN in its K/V cache too, whose blocks other requests take over."""
    wanted = params(temperature, top_p=0.9)
    alone = load(broken[cause], backend=backend)
    options: dict[str, Any] = {"backend": backend, "acceptance": acceptance}
    for drafter in ("ngram", draft):
        llm = load(broken[cause], drafter, num_speculative_tokens=3, **options)
        for _ in range(2):
            outputs, message = generate(llm, wanted)
            reasons = [output.outputs[0].finish_reason for output in outputs]
            assert reasons == ["length" if i in GOOD else "error" for i in range(5)]
            assert "2 of 5 requests failed" in message
            assert "after 0 tokens the logits hold NaN" in message
            for i in GOOD:
                assert len(outputs[i].outputs[0].token_ids) == 12
                if acceptance == "coupled" or temperature == 0:
                    plain = alone.generate(PROMPTS[i], wanted, use_tqdm=False)[0]
                    assert token_ids(outputs[i]) == token_ids(plain)


@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_model_with_such_logits_drafts_nothing(
    target: str, tmp_path: Path, temperature: float, acceptance: str
) -> None:
    model = write_model(tmp_path, tiny_config())
    with torch.no_grad():
        model.model.norm.weight[0] = torch.nan
    save(tmp_path, model)
    llm = load(target, str(tmp_path), num_speculative_tokens=3, acceptance=acceptance)
    output = llm.generate(PROMPTS[1], params(temperature), use_tqdm=False)[0].outputs[0]
    assert len(output.token_ids) == 12
    assert output.speculation.drafts == 0


@pytest.mark.parametrize("acceptance", ["coupled", "standard", "block"])
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_what_came_before_is_kept(broken: dict[str, str], backend: str, acceptance: str) -> None:
    """A request that writes the bad token ends after it, as in plain decoding; others go on."""
    only: dict[str, Any] = {
        "allowed_token_ids": (BAD,),
        "temperature": 1.0,
        "max_tokens": 9,
        "ignore_eos": True,
    }
    for drafter in (None, "ngram"):
        options: dict[str, Any] = {"acceptance": acceptance} if drafter else {}
        llm = load(broken["NaN"], drafter, backend=backend, **options)
        request = llm.engine.add([BAD + 1, BAD + 1, BAD + 1], SamplingParams(**only))
        steps = []
        while llm.engine.unfinished:
            steps += llm.engine.step()
        assert [token for step in steps for token in step.token_ids] == [BAD]
        assert steps[-1].finish_reason == "error"
        assert llm.engine.finished(request)


def test_the_cause_is_named(target: str) -> None:
    llm = load(target)
    huge = SamplingParams(temperature=0, repetition_penalty=1e-40)
    with pytest.raises(Exception, match=r"after 0 tokens the logits hold \+inf, so no token can be chosen"):
        llm.generate([5, 6, 7], huge, use_tqdm=False)
