"""What `LLM` is beside generating: its signature, its name, its metrics, its memory, and conversations."""

from __future__ import annotations

import inspect
import weakref
from typing import Any

import pytest

from outrider import LLM, AsyncLLM, ConfigError, RequestError, SamplingParams
from outrider.compat.vllm.v1.metrics.reader import Counter, Gauge, Histogram, Vector
from outrider.config import OPTIONS, OWN, EngineConfig
from outrider.metrics import COUNTERS, GAUGES, HISTOGRAMS
from outrider.options import EngineOptions, Options, SpeculativeOptions, VllmOptions
from outrider.speculative_config import SpeculativeConfig
from outrider.vllm_arguments import OF_LLM
from tests.engine.helpers import PROMPTS, load

USER = [{"role": "user", "content": "the end"}]
GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True)


def test_the_signature_has_every_option() -> None:
    assert {*EngineOptions.__annotations__, *SpeculativeOptions.__annotations__} == OWN
    assert VllmOptions.__annotations__.keys() <= OF_LLM.keys()
    assert OWN | OF_LLM.keys() == OPTIONS
    for made, own in ((LLM, ["model", "listener", "beside"]), (AsyncLLM, ["model", "listener"])):
        parameters = inspect.signature(made).parameters
        assert [*parameters] == [*own, *Options.__annotations__]
        for config in (EngineConfig, SpeculativeConfig):
            for name in config.model_fields.keys() & OWN:
                assert parameters[name].default == config.model_fields[name].default
                assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY


def test_none_leaves_an_option_at_its_default(target: str) -> None:
    nothing: dict[str, Any] = dict.fromkeys(Options.__annotations__) | {"device": "cpu"}
    assert LLM(target, **nothing).config == LLM(target, device="cpu").config


def test_its_name_says_what_is_loaded(target: str) -> None:
    llm = load(target, "ngram", num_threads=1, max_model_len=64)
    assert repr(llm) == (
        f"LLM(model={target!r}, weights='F32', drafters=['suffix'], device='cpu', num_threads=1, "
        "max_model_len=64)"
    )
    assert "weights='int8', drafters=[]" in repr(load(target, quantization="int8"))


def test_files_are_quantised_as_they_are_said_to_be(target: str) -> None:
    with pytest.raises(ConfigError, match=r"^quantization = 'awq', and the files of .* are not quantised; "):
        load(target, quantization="awq")
    assert load("smollm2", quantization="gguf").engine.weights == "Q4_1"
    with pytest.raises(
        ConfigError, match=r"^quantization = 'gptq', .* are quantised by 'gguf'; leave it out"
    ):
        load("smollm2", quantization="gptq")


def test_metrics_count_what_outputs_tell(target: str) -> None:
    llm = load(target, "ngram", num_speculative_tokens=3)
    outputs = llm.generate([*PROMPTS, *PROMPTS], GREEDY, use_tqdm=False)
    metrics = {metric.name: metric for metric in llm.get_metrics() if "finished_reason" not in metric.labels}
    assert metrics.keys() == {
        f"vllm:{name}"
        for name in (*GAUGES, *COUNTERS, *HISTOGRAMS, "spec_decode_num_accepted_tokens_per_pos")
    }
    stats = [output.outputs[0].speculation for output in outputs]
    counted = {
        "spec_decode_num_drafts": sum(each.drafts for each in stats),
        "spec_decode_num_draft_tokens": sum(each.drafted for each in stats),
        "spec_decode_num_accepted_tokens": sum(each.accepted for each in stats),
        "generation_tokens": sum(len(output.outputs[0].token_ids) for output in outputs),
        "prompt_tokens": sum(len(output.prompt_token_ids) for output in outputs),
        "prefix_cache_hits": sum(output.num_cached_tokens for output in outputs),
    }
    for name, value in counted.items():
        metric = metrics[f"vllm:{name}"]
        assert isinstance(metric, Counter)
        assert metric.value == value
        assert metric.labels == {"model_name": target, "engine": "0"}
    assert counted["spec_decode_num_accepted_tokens"] > 0
    by_position = metrics["vllm:spec_decode_num_accepted_tokens_per_pos"]
    assert isinstance(by_position, Vector)
    assert sum(by_position.values) == counted["spec_decode_num_accepted_tokens"]
    running = metrics["vllm:num_requests_running"]
    assert isinstance(running, Gauge)
    assert running.value == 0
    (ended,) = [metric for metric in llm.get_metrics() if "finished_reason" in metric.labels]
    assert ended == Counter(
        "vllm:request_success", {**running.labels, "finished_reason": "length"}, len(outputs)
    )


def test_times_of_requests_add_up(target: str) -> None:
    llm = load(target)
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    found = {metric.name: metric for metric in llm.get_metrics() if isinstance(metric, Histogram)}
    parts = [found[f"vllm:request_{part}_time_seconds"] for part in ("queue", "prefill", "decode")]
    whole = found["vllm:e2e_request_latency_seconds"]
    assert [part.count for part in parts] == [len(outputs)] * 3
    assert whole.count == whole.buckets["+Inf"] == len(outputs)
    assert sum(part.sum for part in parts) == pytest.approx(whole.sum)
    assert parts[1].sum > 0, "the first step begins before its tokens are there"
    for output in outputs:
        assert output.metrics.time_in_queue is not None
        assert 0 <= output.metrics.time_in_queue < (output.metrics.first_token_latency or 0)
        assert output.metrics.num_generation_tokens == 8


def test_the_cache_of_beginnings_can_be_forgotten(target: str) -> None:
    llm = load(target)
    prompt = tuple(range(20, 90))

    def cached() -> int:
        return llm.generate(prompt, GREEDY, use_tqdm=False)[0].num_cached_tokens

    assert (cached(), cached()) == (0, 64)
    assert llm.reset_prefix_cache()
    assert (cached(), cached()) == (0, 64)
    stream = llm.stream(prompt, GREEDY)
    next(stream)
    assert not llm.reset_prefix_cache(), "a request runs"
    stream.close()
    assert cached() == 64
    pool = llm.engine.target.pool
    assert pool.num_free == pool.num_blocks


def test_shutting_down_gives_all_back(target: str) -> None:
    with load(target, "ngram") as llm:
        stream = llm.stream(PROMPTS[0], GREEDY)
        next(stream)
        engine = weakref.ref(llm.engine)
    assert engine() is None
    for use in (lambda: llm.generate("the"), lambda: next(stream), llm.get_metrics, llm.reset_prefix_cache):
        with pytest.raises(ConfigError, match=r"^this LLM has been shut down; make another one$"):
            use()
    llm.shutdown()


def test_what_is_assigned_later_changes_no_request(target: str) -> None:
    llm = load(target)
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, logit_bias={5: 100.0})
    stream = llm.stream(PROMPTS[0], params)
    first = next(stream)
    params.max_tokens = 1
    assert params.logit_bias is not None
    params.logit_bias[5] = -100.0
    tokens = [*first.token_ids, *(token for increment in stream for token in increment.token_ids)]
    assert tokens == [5] * 8


def test_parameters_that_exclude_each_other_are_refused_when_they_are_used(target: str) -> None:
    params = SamplingParams()
    params.min_tokens = 100
    with pytest.raises(ConfigError, match=r"^min_tokens = 100 is more than max_tokens = 16; lower one$"):
        load(target).generate("the", params)


def test_tokens_without_text(target: str) -> None:
    llm = load(target)
    told, silent = (
        llm.generate(PROMPTS[0], SamplingParams(**vars(GREEDY) | {"detokenize": detokenize}))[0].outputs[0]
        for detokenize in (True, False)
    )
    assert told.token_ids == silent.token_ids
    assert told.text
    assert silent.text == ""


def test_the_end_of_a_prompt(target: str) -> None:
    llm = load(target, max_model_len=64)
    text = "the end of the river " * 20
    params = SamplingParams(temperature=0, max_tokens=4, truncate_prompt_tokens=10)
    with pytest.raises(RequestError, match="the prompt has"):
        llm.generate(text, SamplingParams(max_tokens=4), use_tqdm=False)
    (output,) = llm.generate(text, params, use_tqdm=False)
    assert list(output.prompt_token_ids) == llm.encode(text)[-10:]
    assert output.prompt == text


def test_prompts_as_vllm_has_them(target: str) -> None:
    llm = load(target)
    ids = llm.encode("the end")
    prompts: list[Any] = [
        "the end", {"prompt": "the end"}, {"prompt_token_ids": ids},
        {"prompt_token_ids": ids, "prompt": "Hi"},
    ]  # fmt: skip
    outputs = llm.generate(prompts, GREEDY, use_tqdm=False)
    assert [output.prompt for output in outputs] == ["the end", "the end", None, "Hi"]
    assert {output.prompt_token_ids for output in outputs} == {tuple(ids)}
    with pytest.raises(RequestError, match=r"keys \['multi_modal_data', 'prompt'\]; give"):
        llm.generate({"prompt": "the", "multi_modal_data": {}}, GREEDY)


def test_what_a_conversation_is_laid_out_with(target: str) -> None:
    llm = load(target)
    template = (
        "{% for t in tools or [] %}[{{ t.function.name }}]{% endfor %}{{ messages[-1].content }}{{ mood }}"
    )
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    (output,) = llm.chat(
        USER,
        GREEDY,
        use_tqdm=False,
        chat_template=template,
        tools=tools,
        chat_template_kwargs={"mood": "!"},
    )
    assert llm.tokenizer.decode(output.prompt_token_ids) == "[look]the end!"


def test_a_last_message_can_go_on(target: str) -> None:
    llm = load(target)
    messages = [*USER, {"role": "assistant", "content": "It is "}]
    text = llm.chat_text(messages, add_generation_prompt=False, continue_final_message=True)
    assert text.endswith("<|im_start|>assistant\nIt is")
    with pytest.raises(ConfigError, match="add_generation_prompt and continue_final_message are both True"):
        llm.chat(messages, GREEDY, continue_final_message=True)
    with pytest.raises(RequestError, match="continue_final_message = True, and the chat template"):
        llm.chat_text(
            messages, add_generation_prompt=False, continue_final_message=True, chat_template="nothing"
        )
    form: Any = "openai"
    with pytest.raises(ConfigError, match="chat_template_content_format = 'openai'"):
        llm.chat(messages, GREEDY, chat_template_content_format=form)


def test_the_models_own_sampling_is_the_default(target: str) -> None:
    llm = load(target, override_generation_config={"temperature": 0, "max_new_tokens": 3})
    assert llm.get_default_sampling_params() == SamplingParams(temperature=0, max_tokens=3)
    default, given = (
        llm.generate(PROMPTS[0], params, use_tqdm=False)[0].outputs[0].token_ids
        for params in (None, SamplingParams(temperature=0, max_tokens=3))
    )
    assert default == given
    assert len(next(iter(llm.chat(USER, use_tqdm=False))).outputs[0].token_ids) <= 3
