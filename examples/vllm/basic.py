"""Complete some prompts."""

from outrider import LLM, SamplingParams

PROMPTS = ["Hello, my name is", "The capital of France is", "The future of AI is"]


def main(model: str = "smollm2") -> None:
    llm = LLM(model=model, gpu_memory_utilization=0.8, enforce_eager=True, trust_remote_code=False)
    sampling_params = SamplingParams(temperature=0.8, top_p=0.95, seed=1)
    sampling_params.max_tokens = 24
    for output in llm.generate(PROMPTS, sampling_params):
        print(f"{output.prompt!r} goes on {output.outputs[0].text!r}")

    logprobs = SamplingParams(temperature=0, max_tokens=4, logprobs=2, n=1)
    completion = llm.generate(PROMPTS[1], sampling_params=logprobs)[0].outputs[0]
    for position in completion.logprobs or ():
        print({one.decoded_token: round(one.logprob, 2) for one in position.values()})
    print(f"{completion.cumulative_logprob:.2f} in all, ended by {completion.finish_reason}")


if __name__ == "__main__":
    main()
