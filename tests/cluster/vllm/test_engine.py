"""vLLM behind `LLM`, `AsyncLLM` and the server; what it is asked, and what becomes of what it tells."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from outrider import LLM, AsyncLLM, ConfigError, RequestError, SamplingParams
from outrider.batch import RequestsFailed
from outrider.cluster.vllm.outputs import allotted
from outrider.engine.generation import EngineStopped, Resumption
from outrider.metrics import Counter, Gauge, Vector
from outrider.outputs import SpeculationStats
from outrider.params import StructuredOutputs
from tests.cluster.vllm import fakes
from tests.serving.harness import running

Make = Callable[..., LLM]
GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
END = 2  # <|im_end|> of the tiny model


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, target: str) -> Make:
    fakes.install(monkeypatch)

    def make(**options: Any) -> LLM:
        return LLM(target, engine="vllm", **options)

    return make


def vllm_of(llm: LLM) -> Any:
    engine: Any = llm.shared.engine
    return engine._engine


def test_what_it_is_asked(make: Make) -> None:
    """All parameters are given, each sequence is a request of its own, and text is not vLLM's affair."""
    llm = make(max_model_len=64, scheduling_policy="priority")
    params = SamplingParams(
        n=2, seed=7, temperature=0.5, top_p=0.9, max_tokens=3, stop="never", stop_token_ids=[9],
        structured_outputs=StructuredOutputs(choice=["a", "b"]), cache_salt="own",
    )  # fmt: skip
    llm.generate((5, 6, 7), params, priority=-2, use_tqdm=False)
    (first, prompt, asked, priority), (second, _, other, _) = vllm_of(llm).added
    assert (first, second, priority) == ("0-0", "0-1", -2)
    assert prompt == {"type": "token", "prompt_token_ids": [5, 6, 7], "cache_salt": "own"}
    assert (asked.seed, other.seed, asked.temperature, asked.top_p) == (7, 8, 0.5, 0.9)
    assert asked.stop_token_ids == [9, END]
    assert vars(asked.structured_outputs) == {"choice": ["a", "b"]}
    assert (asked.detokenize, asked.output_kind) == (False, "delta")
    assert not vars(asked).keys() & {"stop", "n", "skip_special_tokens"}
    assert vllm_of(llm).arguments.max_model_len == 64


def test_what_it_tells(make: Make) -> None:
    llm = make()
    params = GREEDY.model_copy(update={"n": 2, "logprobs": 0, "prompt_logprobs": 0})
    (output,) = llm.generate((5, 6, 7), params, use_tqdm=False)
    for completion in output.outputs:
        assert completion.token_ids == (30, 31, 32, 33, 30, 31)
        assert completion.text == llm.tokenizer.decode(completion.token_ids)
        assert (completion.finish_reason, completion.stop_reason) == ("length", None)
        assert completion.cumulative_logprob == -3.0
        assert completion.logprobs is not None
        assert completion.logprobs[0][30].decoded_token == llm.tokenizer.decode(30)
        assert completion.speculation == SpeculationStats()
    assert output.prompt_logprobs is not None
    assert [None if each is None else [*each] for each in output.prompt_logprobs] == [None, [6], [7]]
    assert output.num_cached_tokens == 3
    times = output.metrics
    assert times.time_in_queue == pytest.approx(0.25)
    assert times.num_generation_tokens == 6
    assert times.finished_time == times.last_token_time
    assert not vllm_of(llm).running


@pytest.mark.parametrize("included", [False, True])
def test_stop_strings_are_found_here(make: Make, included: bool) -> None:
    """vLLM knows nothing of them, is told to stop, and what it said meanwhile is left out."""
    llm = make(speculative_model="ngram", num_speculative_tokens=5)
    stop = llm.tokenizer.decode(32)
    params = SamplingParams(
        temperature=0, max_tokens=40, stop=stop, include_stop_str_in_output=included, ignore_eos=True
    )
    completion = llm.generate((5, 6), params, use_tqdm=False)[0].outputs[0]
    assert completion.token_ids == (30, 31, 32)
    assert completion.text == llm.tokenizer.decode([30, 31, 32] if included else [30, 31])
    assert (completion.finish_reason, completion.stop_reason) == ("stop", stop)
    assert vllm_of(llm).aborted == ["0-0"]


@pytest.mark.parametrize(
    ("asked", "tokens", "text", "reason"),
    [
        ({}, (30, 31, 32, END), (30, 31, 32), None),
        ({"stop_token_ids": [31]}, (30, 31), (30,), 31),
        ({"ignore_eos": True, "max_tokens": 5}, (30, 31, 32, END, 33), None, None),
    ],
)
def test_tokens_that_end_an_output(
    make: Make, monkeypatch: pytest.MonkeyPatch, asked: Any, tokens: Any, text: Any, reason: Any
) -> None:
    """The model's own ends are those that our engine would have."""
    monkeypatch.setattr(fakes.LLMEngine, "says", (30, 31, 32, END, 33))
    llm = make()
    completion = llm.generate((5,), SamplingParams(temperature=0, **asked), use_tqdm=False)[0].outputs[0]
    assert completion.token_ids == tokens
    assert completion.stop_reason == reason
    if text is not None:
        assert completion.finish_reason == "stop"
        assert completion.text == llm.tokenizer.decode(text)


def test_drafts_are_counted_as_vllm_counts_them(make: Make) -> None:
    llm = make(speculative_model="ngram", num_speculative_tokens=3)
    params = GREEDY.model_copy(update={"max_tokens": 11})
    outputs = llm.generate([(5,), (6, 7)], params, use_tqdm=False)
    # One token, then drafts of 3 of which 0, 1, 2 and 3 stand: 1 + 1 + 2 + 3 + 4.
    expected = SpeculationStats.of_drafts({(3, n): 1 for n in range(4)})
    assert [output.outputs[0].speculation for output in outputs] == [expected, expected]
    assert expected.acceptance_length == 2.5
    counted = {metric.name.removeprefix("vllm:"): metric for metric in llm.get_metrics()}

    def count(name: str) -> float:
        metric = counted[name]
        assert isinstance(metric, Counter)
        return metric.value

    assert count("spec_decode_num_drafts") == 8
    assert count("spec_decode_num_draft_tokens") == 24
    assert count("spec_decode_num_accepted_tokens") == 12
    assert count("generation_tokens") == 22
    by_position, waiting = counted["spec_decode_num_accepted_tokens_per_pos"], counted["num_requests_waiting"]
    assert isinstance(by_position, Vector)
    assert by_position.values == [6, 4, 2]
    assert isinstance(waiting, Gauge)
    assert waiting.value == 2


def test_a_stream_says_where_tokens_came_from(make: Make) -> None:
    llm = make(speculative_model="ngram", num_speculative_tokens=1)
    increments = [*llm.stream((5,), GREEDY)]
    pieces = [[piece.origin for piece in increment.pieces] for increment in increments]
    assert pieces[:4] == [["target"], ["correction"], ["draft", "bonus"], ["correction"]]
    assert "".join(i.text for i in increments) == llm.tokenizer.decode((30, 31, 32, 33, 30, 31))


@pytest.mark.parametrize(
    ("tokens", "first", "drafts", "drafted", "expected"),
    [
        ((1, 2), (False, False), 0, 0, [0, 0]),
        ((1, 3), (False, False), 1, 4, [0, 4]),
        ((1, 3), (False, False), 2, 8, [4, 4]),
        ((1, 1, 1), (True, False, False), 1, 3, [0, 3, 0]),
        ((1, 4), (False, False), 2, 4, [2, 3]),
    ],
)
def test_the_drafts_of_a_step_are_allotted(
    tokens: Any, first: Any, drafts: int, drafted: int, expected: list[int]
) -> None:
    stats = SimpleNamespace(num_drafts=drafts, num_draft_tokens=drafted)
    assert allotted(tokens, first, stats) == expected
    assert allotted(tokens, first, None) == [0] * len(tokens)


def test_what_is_known_of_it(make: Make) -> None:
    """It promises nothing that vLLM does not."""
    llm = make(
        tensor_parallel_size=8,
        pipeline_parallel_size=2,
        distributed_executor_backend="ray",
        speculative_model="ngram",
        num_speculative_tokens=5,
    )
    about = llm.about
    assert not about.exact
    assert (about.drafters, about.weights, about.vocab_size, about.max_num_seqs) == (
        ("ngram",), "bfloat16", fakes.VOCAB, 256,
    )  # fmt: skip
    assert "tensor parallel 8, pipeline parallel 2" in about.threads
    assert "num_threads" not in repr(llm)
    assert llm.reset_prefix_cache()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"temperature": 0.005}, "^temperature = 0.005: vLLM takes 0, and 0.01 at least"),
        ({"num_speculative_tokens": 0}, "^num_speculative_tokens = 0: vLLM drafts 3 tokens for all requests"),
        ({"min_p": 0.1}, "^vLLM does not take the request: min_p and logit_bias are not supported"),
    ],
)
def test_parameters_that_vllm_has_not(make: Make, asked: Any, message: str) -> None:
    llm = make(speculative_model="ngram", num_speculative_tokens=3)
    with pytest.raises((ConfigError, RequestError), match=message):
        llm.generate((5,), SamplingParams(**asked), use_tqdm=False)
    assert not vllm_of(llm).added
    assert llm.generate((5,), SamplingParams(num_speculative_tokens=3), use_tqdm=False)


def test_what_only_our_engine_does(make: Make) -> None:
    llm = make()
    with pytest.raises(ConfigError, match="works with engine = 'outrider' alone"):
        _ = llm.engine
    with pytest.raises(ConfigError, match="embed with engine = 'outrider'"):
        llm.embed("the")
    with pytest.raises(RequestError, match="broke off elsewhere; ask again"):
        llm.shared.engine.prepare((5,), GREEDY, said=(Resumption((1,)),))
    another: Any = "sglang"
    with pytest.raises(ConfigError, match=r"^engine = 'sglang': give 'outrider' or 'vllm'"):
        LLM("model", engine=another)


def test_a_request_that_vllm_does_not_take_ends_alone(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = make()
    engine = vllm_of(llm)
    added = engine.add_request

    def refusing(name: str, *given: Any, **named: Any) -> None:
        if name == "0-0":
            raise RuntimeError("no")
        added(name, *given, **named)

    monkeypatch.setattr(engine, "add_request", refusing)
    with pytest.raises(RequestsFailed) as failed:
        llm.generate([(5,), (6,)], GREEDY, use_tqdm=False)
    assert [*failed.value.errors] == [0]
    assert failed.value.outputs[1] is not None
    assert failed.value.outputs[1].finished


def test_leaving_a_stream_ends_the_request(make: Make) -> None:
    llm = make()
    stream = llm.stream((5,), GREEDY)
    next(stream)
    stream.close()
    assert vllm_of(llm).aborted == ["0-0"]
    assert not llm.shared.engine.unfinished


def test_shutting_down_ends_vllms_processes(make: Make) -> None:
    llm = make()
    engine = vllm_of(llm)
    llm.shutdown()
    assert engine.closed


def test_the_loop_of_asyncio(make: Make, target: str) -> None:
    async def whole() -> list[tuple[int, ...]]:
        llm = AsyncLLM(target, engine="vllm")
        told = [output.outputs[0].token_ids async for output in llm.generate((5,), GREEDY)]
        llm.shutdown()
        return told

    told = asyncio.run(whole())
    assert told[-1] == (30, 31, 32, 33, 30, 31)
    assert [len(each) for each in told[:-1]] == [1, 2, 3, 4, 5]


def test_the_server(make: Make) -> None:
    """Whole and streamed, with the numbers of its drafts, and what it cannot do is told to the client."""
    chat = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9, "ignore_eos": True}
    llm = make(speculative_model="ngram", num_speculative_tokens=2)
    with running(llm) as served:
        whole = served.post("/v1/chat/completions", **chat).json()
        assert whole["usage"]["completion_tokens"] == 9
        streamed = served.client().chat.completions.create(
            model="tiny", messages=chat["messages"], max_tokens=9, stream=True,  # type: ignore[call-overload]
            extra_body={"ignore_eos": True},
        )  # fmt: skip
        text = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        assert text == whole["choices"][0]["message"]["content"]
        refused = served.post("/v1/chat/completions", **chat, min_p=0.5)
        assert refused.status_code == 400
        assert "min_p" in refused.json()["error"]["message"]
        metrics = served.http.get("/metrics").text
        assert 'outrider:spec_decode_num_drafts_total{model_name="tiny"}' in metrics
        assert served.post("/v1/embeddings", input="hi").status_code == 400


def test_vllms_log_is_not_among_results() -> None:
    assert os.environ["VLLM_LOGGING_STREAM"] == "ext://sys.stderr"


def test_a_server_whose_vllm_has_died_is_not_healthy(make: Make) -> None:
    llm = make()
    with running(llm) as served:
        assert served.http.get("/health").status_code == 200
        vllm_of(llm).dead = True
        answer = served.post("/v1/completions", prompt="hi", max_tokens=4)
        assert answer.status_code == 503
        assert served.http.get("/health").status_code == 503


def test_a_dead_engine_ends_the_offline_call(make: Make) -> None:
    llm = make()
    vllm_of(llm).dead = True
    with pytest.raises(EngineStopped, match="its log says why"):
        llm.generate((5,), GREEDY, use_tqdm=False)
