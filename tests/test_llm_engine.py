"""An engine that its caller steps gives what `LLM` gives, under the caller's ids."""

from __future__ import annotations

from itertools import pairwise

import pytest

from outrider import ConfigError, LLMEngine, RequestError, RequestOutput, RequestOutputKind, SamplingParams
from outrider.engine_args import EngineArgs
from tests.engine.helpers import PROMPTS, expected, load, token_ids

pytestmark = pytest.mark.usefixtures("one_thread")

PARAMS = SamplingParams(temperature=1.0, seed=5, max_tokens=12, n=2, logprobs=1, ignore_eos=True)


def drain(engine: LLMEngine) -> dict[str, list[RequestOutput]]:
    """All outputs of each request, in order."""
    found: dict[str, list[RequestOutput]] = {}
    while engine.has_unfinished_requests():
        for output in engine.step():
            found.setdefault(output.request_id, []).append(output)
    return found


@pytest.mark.parametrize("kind", RequestOutputKind)
@pytest.mark.parametrize("drafter", [None, "ngram"])
def test_outputs_are_of_the_kind_that_is_asked_for(
    target: str, drafter: str | None, kind: RequestOutputKind
) -> None:
    engine = load(target, drafter).llm_engine
    params = PARAMS.model_copy(update={"output_kind": kind})
    for number, prompt in enumerate(PROMPTS):
        engine.add_request(f"r{number}", prompt, params)
    assert engine.get_num_unfinished_requests() == len(PROMPTS)
    found = drain(engine)
    for number, prompt in enumerate(PROMPTS):
        wanted, outputs = expected(target, prompt, PARAMS), found[f"r{number}"]
        assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
        assert {output.prompt_token_ids for output in outputs} == {prompt}
        for completion in wanted.outputs:
            told = [each for output in outputs for each in output.outputs if each.index == completion.index]
            if kind is RequestOutputKind.DELTA:
                assert "".join(each.text for each in told) == completion.text
                assert sum((each.token_ids for each in told), ()) == completion.token_ids
                assert sum((each.logprobs or () for each in told), ()) == completion.logprobs
            else:
                texts = [each.text for each in told]
                assert texts[-1] == completion.text
                assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
                assert told[-1].logprobs == completion.logprobs
                assert told[-1].cumulative_logprob == pytest.approx(completion.cumulative_logprob)
        assert len(outputs) == 1 if kind is RequestOutputKind.FINAL_ONLY else len(outputs) > 3
    assert not engine.has_unfinished_requests()
    assert engine.step() == []


def test_stop_strings_are_never_told(target: str) -> None:
    llm = load(target)
    text = llm.generate(PROMPTS[0], PARAMS.model_copy(update={"n": 1}), use_tqdm=False)[0].outputs[0].text
    stop = text[4:7]
    params = PARAMS.model_copy(update={"n": 1, "stop": (stop,), "output_kind": RequestOutputKind.DELTA})
    llm.llm_engine.add_request("a", PROMPTS[0], params)
    told = "".join(output.outputs[0].text for output in drain(llm.llm_engine)["a"])
    assert told == text[: text.index(stop)]


def test_requests_can_be_aborted(target: str) -> None:
    llm = load(target)
    engine = llm.llm_engine
    for name in "abc":
        engine.add_request(name, PROMPTS[0], PARAMS)
    engine.step()
    engine.abort_request("a")
    engine.abort_request(["c", "nobody"])
    assert engine.get_num_unfinished_requests() == 1
    (outputs,) = drain(engine).values()
    assert token_ids(outputs[-1]) == token_ids(expected(target, PROMPTS[0], PARAMS))
    assert outputs[-1].request_id == "b"
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks


def test_it_shares_the_engine_with_its_llm(target: str) -> None:
    llm = load(target)
    llm.llm_engine.add_request("a", PROMPTS[1], PARAMS)
    (output,) = llm.generate(PROMPTS[0], PARAMS, use_tqdm=False)
    assert token_ids(output) == token_ids(expected(target, PROMPTS[0], PARAMS))
    assert token_ids(drain(llm.llm_engine)["a"][-1]) == token_ids(expected(target, PROMPTS[1], PARAMS))


def test_what_is_refused(target: str) -> None:
    engine = LLMEngine.from_engine_args(EngineArgs(target, device="cpu", max_model_len=64))
    engine.add_request("a", "the", PARAMS)
    with pytest.raises(ConfigError, match=r"^request_id = 'a': it runs already; give another$"):
        engine.add_request("a", "the", PARAMS)
    with pytest.raises(ConfigError, match="tokenization_kwargs"):
        engine.add_request("b", "the", PARAMS, tokenization_kwargs={"truncation": True})
    with pytest.raises(RequestError, match="the prompt has"):
        engine.add_request("b", list(range(3, 80)), PARAMS)
    assert engine.get_num_unfinished_requests() == 1
    assert engine.model_config == engine.get_model_config()
    assert (engine.model_config.model, engine.model_config.max_model_len) == (target, 64)
    assert engine.get_tokenizer() is engine.tokenizer
