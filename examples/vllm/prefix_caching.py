"""Prompts that begin alike, with and without the cache of beginnings: the answers are the same."""

from outrider.compat.vllm import LLM, SamplingParams
from outrider.compat.vllm.distributed import cleanup_dist_env_and_memory

PREFIX = (
    "You are the editor of an encyclopedia of rivers. Entries are short, name the source, the mouth and the "
    "length, and never repeat what another entry says. You check each figure twice before you write it down. "
)
PROMPTS = [PREFIX + rest for rest in ("The Rhine is", "The Danube is", "The Elbe is")]


def main(model: str = "smollm2") -> None:
    sampling_params = SamplingParams(temperature=0.0, max_tokens=16)
    regular = LLM(model=model, enable_prefix_caching=False, gpu_memory_utilization=0.4)
    plain = regular.generate(PROMPTS, sampling_params)
    del regular
    cleanup_dist_env_and_memory()

    llm = LLM(model=model, enable_prefix_caching=True, gpu_memory_utilization=0.4)
    llm.generate(PROMPTS[0], sampling_params)  # so that the beginning is there
    cached = llm.generate(PROMPTS, sampling_params)
    print(f"prompt tokens from the cache: {[output.num_cached_tokens for output in cached]}")
    same = [a.outputs[0].text == b.outputs[0].text for a, b in zip(plain, cached, strict=True)]
    print(f"answers are the same: {all(same)}")

    print(f"reset: {llm.reset_prefix_cache()}")
    print(f"then from the cache: {llm.generate(PROMPTS[0], sampling_params)[0].num_cached_tokens}")


if __name__ == "__main__":
    main()
