"""Complete prompts with and without a drafter, and see that the tokens are the same."""

from outrider import LLM, SamplingParams

llm = LLM(model="smollm2", speculative_model="ngram")
prompts = ["The capital of France is", "def fibonacci(n):"]
params = SamplingParams(temperature=0.7, seed=7, max_tokens=48)

speculative = llm.generate(prompts, params)
plain = llm.generate(prompts, params.model_copy(update={"num_speculative_tokens": 0}))

for a, b in zip(speculative, plain, strict=True):
    stats = a.outputs[0].speculation
    print(a.prompt, "...", a.outputs[0].text)
    print(
        f"  {stats.accepted} of {stats.drafted} drafted tokens accepted;",
        "same tokens" if a.outputs[0].token_ids == b.outputs[0].token_ids else "DIFFERENT tokens",
    )
