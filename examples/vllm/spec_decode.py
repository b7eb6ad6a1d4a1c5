"""Speculative decoding, and what its metrics say."""

from outrider.compat.vllm import LLM, SamplingParams, TokensPrompt
from outrider.compat.vllm.v1.metrics.reader import Counter, Vector

TEXT = "One fish, two fish, red fish, blue fish. One fish, two fish, red fish,"
LENGTH = 3


def main(model: str = "smollm2") -> None:
    llm = LLM(
        model=model,
        speculative_config={
            "method": "ngram",
            "num_speculative_tokens": LENGTH,
            "prompt_lookup_max": 4,
            "prompt_lookup_min": 1,
        },
        tensor_parallel_size=1,
        gpu_memory_utilization=0.8,
        disable_log_stats=False,
        max_model_len=512,
    )
    prompt = TokensPrompt(prompt_token_ids=llm.get_tokenizer().encode(TEXT, add_special_tokens=False))
    outputs = llm.generate([prompt], sampling_params=SamplingParams(temperature=0, max_tokens=64))
    print(outputs[0].outputs[0].text)

    num_drafts = num_accepted = 0.0
    accepted_at = [0] * LENGTH
    for metric in llm.get_metrics():
        if metric.name == "vllm:spec_decode_num_drafts":
            assert isinstance(metric, Counter)
            num_drafts += metric.value
        elif metric.name == "vllm:spec_decode_num_accepted_tokens":
            assert isinstance(metric, Counter)
            num_accepted += metric.value
        elif metric.name == "vllm:spec_decode_num_accepted_tokens_per_pos":
            assert isinstance(metric, Vector)
            for position, count in enumerate(metric.values):
                accepted_at[position] += count
    print(f"drafts: {num_drafts}")
    if num_drafts:
        print(f"mean acceptance length: {1 + num_accepted / num_drafts:.2f}")
        for position, count in enumerate(accepted_at):
            print(f"acceptance at token {position}: {count / num_drafts:.2f}")


if __name__ == "__main__":
    main()
