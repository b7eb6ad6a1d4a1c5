"""`AsyncLLM` gives what `LLM` gives, to many tasks of an event loop."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from outrider import AsyncLLM, ConfigError, EngineArgs, RequestError, RequestOutput, SamplingParams
from outrider.engine.generation import EngineStopped
from outrider.params import RequestOutputKind
from tests.engine.helpers import PROMPTS, expected, token_ids

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(60)]

PARAMS = SamplingParams(temperature=1.0, seed=5, max_tokens=16, n=2, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=900, ignore_eos=True)


@asynccontextmanager
async def serving(target: str, **options: Any) -> AsyncIterator[AsyncLLM]:
    llm = AsyncLLM.from_engine_args(EngineArgs(target, device="cpu", **options))
    try:
        yield llm
    finally:
        llm.shutdown()


async def outputs_of(llm: AsyncLLM, prompt: Any, params: SamplingParams, name: str) -> list[RequestOutput]:
    return [output async for output in llm.generate(prompt, params, name)]


@pytest.mark.parametrize("drafter", [None, "ngram"])
def test_tasks_share_it(target: str, drafter: str | None) -> None:
    async def main() -> None:
        async with serving(target, speculative_model=drafter) as llm:
            tasks = [outputs_of(llm, prompt, PARAMS, f"r{n}") for n, prompt in enumerate(PROMPTS)]
            for number, outputs in enumerate(await asyncio.gather(*tasks)):
                assert {output.request_id for output in outputs} == {f"r{number}"}
                assert [output.finished for output in outputs] == [False] * (len(outputs) - 1) + [True]
                wanted = expected(target, PROMPTS[number], PARAMS)
                assert token_ids(outputs[-1]) == token_ids(wanted)
            assert any(metric.name == "vllm:generation_tokens" for metric in llm.get_metrics())
            assert await llm.get_tokenizer() is llm.llm.tokenizer

    asyncio.run(main())


@pytest.mark.parametrize("kind", [RequestOutputKind.DELTA, RequestOutputKind.FINAL_ONLY])
def test_other_kinds_of_outputs(target: str, kind: RequestOutputKind) -> None:
    async def main() -> None:
        async with serving(target) as llm:
            params = PARAMS.model_copy(update={"output_kind": kind})
            outputs = await outputs_of(llm, PROMPTS[1], params, "a")
            told: dict[int, tuple[int, ...]] = {}
            for output in outputs:
                for each in output.outputs:
                    told[each.index] = told.get(each.index, ()) + each.token_ids
            wanted = expected(target, PROMPTS[1], PARAMS)
            assert list(told.values()) == token_ids(wanted)
            assert (len(outputs) == 1) == (kind is RequestOutputKind.FINAL_ONLY)

    asyncio.run(main())


def test_an_abort_ends_the_iteration(target: str) -> None:
    async def main() -> None:
        async with serving(target) as llm:
            task = asyncio.create_task(outputs_of(llm, PROMPTS[0], LONG, "a"))
            while not llm.llm.engine.scheduler.running:
                await asyncio.sleep(0.001)
            await llm.abort("a")
            last = (await task)[-1]
            assert (last.finished, last.outputs[0].finish_reason) == (True, "abort")
            assert 0 < len(last.outputs[0].token_ids) < 900
            tokens = expected(target, PROMPTS[0], LONG).outputs[0].token_ids
            assert tokens[: len(last.outputs[0].token_ids)] == last.outputs[0].token_ids
            await llm.abort(["a", "nobody"])
            assert await llm.reset_prefix_cache()

    asyncio.run(main())


def test_an_abort_before_it_has_begun(target: str) -> None:
    async def main() -> None:
        async with serving(target) as llm:
            task = asyncio.create_task(outputs_of(llm, PROMPTS[0], LONG, "a"))
            while "a" not in llm._running:
                await asyncio.sleep(0)
            await llm.abort("a")
            assert (await task)[-1].outputs[0].finish_reason == "abort"

    asyncio.run(main())


def test_who_leaves_frees_all(target: str) -> None:
    async def main() -> None:
        async with serving(target) as llm:
            stream = llm.generate(PROMPTS[0], LONG)
            await anext(stream)
            await stream.aclose()
            while llm.llm.engine.unfinished:
                await asyncio.sleep(0.001)
            pool = llm.llm.engine.target.pool
            assert pool.num_free == pool.num_blocks

    asyncio.run(main())


def test_what_is_refused(target: str) -> None:
    async def main() -> None:
        async with serving(target, max_model_len=64) as llm:
            with pytest.raises(RequestError, match="the prompt has"):
                await outputs_of(llm, list(range(3, 80)), PARAMS, "a")
            stream = llm.generate("the", LONG.model_copy(update={"max_tokens": 50}), "a")
            await anext(stream)
            with pytest.raises(ConfigError, match=r"^request_id = 'a': it runs already; give another$"):
                await outputs_of(llm, "the", PARAMS, "a")
            await stream.aclose()
            await llm.check_health()
        with pytest.raises(EngineStopped):
            await llm.check_health()
        with pytest.raises(ConfigError, match="has been shut down"):
            await outputs_of(llm, "the", PARAMS, "b")

    asyncio.run(main())


def test_one_event_loop_has_it(target: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llm = AsyncLLM(target, device="cpu")
    assert repr(llm).startswith("AsyncLLM(model=")
    asyncio.run(outputs_of(llm, "the", PARAMS, "a"))
    with pytest.raises(ConfigError, match="belongs to another event loop"):
        asyncio.run(outputs_of(llm, "the", PARAMS, "a"))
    llm.shutdown()
