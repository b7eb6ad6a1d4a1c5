"""The engine step by step, behind an event loop, and beams."""

import asyncio

from outrider.compat.vllm import LLM, EngineArgs, LLMEngine, SamplingParams
from outrider.compat.vllm.engine.arg_utils import AsyncEngineArgs
from outrider.compat.vllm.sampling_params import BeamSearchParams, RequestOutputKind
from outrider.compat.vllm.v1.engine.async_llm import AsyncLLM


def step_by_step(model: str) -> None:
    engine = LLMEngine.from_engine_args(EngineArgs(model=model, max_model_len=256))
    waiting = [
        ("To be or not to be,", SamplingParams(temperature=0.8, top_k=5, presence_penalty=0.2, seed=1)),
        ("What is the meaning of life?", SamplingParams(n=2, temperature=0.8, top_p=0.95, seed=2)),
    ]
    request_id = 0
    while waiting or engine.has_unfinished_requests():
        if waiting:
            prompt, sampling_params = waiting.pop(0)
            engine.add_request(str(request_id), prompt, sampling_params)
            request_id += 1
        for output in engine.step():
            if output.finished:
                print(output.request_id, [completion.text for completion in output.outputs])


async def stream(engine: AsyncLLM, prompt: str, request_id: str) -> str:
    sampling_params = SamplingParams(
        max_tokens=24, temperature=0.8, seed=42, output_kind=RequestOutputKind.DELTA
    )
    text = ""
    async for output in engine.generate(
        request_id=request_id, prompt=prompt, sampling_params=sampling_params
    ):
        for completion in output.outputs:
            text += completion.text
        if output.finished:
            break
    return text


async def behind_a_loop(model: str) -> None:
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, max_model_len=256))
    try:
        prompts = ["The future of AI is", "In a galaxy far, far away"]
        texts = await asyncio.gather(*(stream(engine, prompt, f"r{n}") for n, prompt in enumerate(prompts)))
        for prompt, text in zip(prompts, texts, strict=True):
            print(f"{prompt!r} goes on {text!r}")
    finally:
        engine.shutdown()


def beams(model: str) -> None:
    llm = LLM(model=model, max_model_len=256)
    params = BeamSearchParams(beam_width=3, max_tokens=8)
    for output in llm.beam_search([{"prompt": "The capital of France is"}], params):
        for sequence in output.sequences:
            print(f"{sequence.cum_logprob:.3f} {sequence.text!r}")


def main(model: str = "smollm2") -> None:
    step_by_step(model)
    asyncio.run(behind_a_loop(model))
    beams(model)


if __name__ == "__main__":
    main()
