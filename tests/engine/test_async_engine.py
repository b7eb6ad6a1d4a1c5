"""Many calls on one event loop: outputs are the offline engine's, and who leaves frees what they had."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from outrider import LLM, RequestError, RequestOutput, SamplingParams
from outrider.engine import admission
from outrider.engine.async_engine import AsyncEngine
from outrider.engine.detokenizer import OutputText
from outrider.engine.generation import EngineFailed, EngineStopped, Generation, QueueFull, TextPrompt
from outrider.engine.request import Request
from outrider.params import StructuredOutputs
from outrider.sampling.sampler import Sampler
from outrider.sandbox.workers import GivenUp
from tests import planted
from tests.engine.helpers import BLOCK, PROMPTS, expected, load, token_ids
from tests.watchers import Record

LONG = SamplingParams(temperature=0, max_tokens=400, ignore_eos=True)
SHORT = SamplingParams(temperature=1.0, seed=5, max_tokens=24, n=2)


@asynccontextmanager
async def serving(llm: LLM, *, capacity: int = 64, watcher: Any = None) -> AsyncIterator[AsyncEngine]:
    engine = AsyncEngine(llm.engine, capacity=capacity, watcher=watcher)
    engine.start()
    try:
        yield engine
    finally:
        await engine.close()
        assert not engine._thread.is_alive()


async def finish(generation: Generation) -> list[RequestOutput]:
    async with generation:
        async for _ in generation:
            pass
        return generation.outputs


def prompt(tokens: Sequence[int]) -> list[TextPrompt]:
    return [TextPrompt(tokens)]


async def until_free(llm: LLM) -> None:
    """Blocks are freed by the engine's thread, before its next step."""
    pool = llm.engine.target.pool
    async with asyncio.timeout(30):
        while pool.num_free < pool.num_blocks:
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("drafter", [None, "ngram", "draft"])
def test_outputs_are_the_offline_engines(
    target: str, drafter: str | None, request: pytest.FixtureRequest
) -> None:
    name = request.getfixturevalue("draft") if drafter == "draft" else drafter
    blocks = 10 if drafter != "draft" else 20  # so few that requests are preempted
    llm = load(target, name, kv_cache_memory=blocks * BLOCK, max_model_len=112, max_num_seqs=4)
    watcher = Record()

    async def run() -> None:
        async with serving(llm, watcher=watcher) as engine:
            calls = [engine.generate(prompt(tokens), SHORT) for tokens in PROMPTS * 3]
            outputs = await asyncio.gather(*map(finish, calls))
            for tokens, (output,) in zip(PROMPTS * 3, outputs, strict=True):
                assert token_ids(output) == token_ids(expected(target, tokens, SHORT))
            await until_free(llm)

    asyncio.run(run())
    assert len(watcher.outputs) == 3 * len(PROMPTS)
    counted = sum(len(increment.token_ids) for increment in watcher.increments)
    assert counted == sum(len(ids) for output in watcher.outputs for ids in token_ids(output))
    assert any(watcher.preempted)
    assert watcher not in llm.engine.watchers, "a server that is closed leaves nobody behind"


def test_increments_of_several_prompts(target: str) -> None:
    """Put together, they are the outputs, with their log-probabilities."""
    params = SHORT.model_copy(update={"logprobs": 1})

    async def run() -> None:
        async with (
            serving(load(target)) as engine,
            engine.generate([TextPrompt(t) for t in PROMPTS[:3]], params) as call,
        ):
            increments = [pair async for pair in call]
        for number, output in enumerate(call.outputs):
            for completion in output.outputs:
                own = [i for n, i in increments if (n, i.index) == (number, completion.index)]
                assert sum((i.token_ids for i in own), ()) == completion.token_ids
                assert sum((i.logprobs or () for i in own), ()) == completion.logprobs
                assert "".join(i.text for i in own) == completion.text

    asyncio.run(run())


def test_who_leaves_frees_their_blocks_and_disturbs_nobody(target: str) -> None:
    llm = load(target, "ngram")

    async def leave_early(engine: AsyncEngine, steps: int) -> None:
        async with engine.generate(prompt(PROMPTS[2]), LONG) as call:
            async for _ in call:
                steps -= 1
                if not steps:
                    return

    async def cancelled(engine: AsyncEngine, seconds: float) -> None:
        task = asyncio.create_task(finish(engine.generate(prompt(PROMPTS[1]), LONG)))
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def run() -> None:
        draw = random.Random(0)
        async with serving(llm) as engine:
            staying = [
                asyncio.create_task(finish(engine.generate(prompt(tokens), SHORT))) for tokens in PROMPTS
            ]
            await asyncio.gather(
                *(leave_early(engine, draw.randrange(1, 9)) for _ in range(8)),
                *(cancelled(engine, draw.random() / 20) for _ in range(8)),
            )
            for tokens, (output,) in zip(PROMPTS, await asyncio.gather(*staying), strict=True):
                assert token_ids(output) == token_ids(expected(target, tokens, SHORT))
            await until_free(llm)
            assert engine.num_sequences == 0
            assert not llm.engine.unfinished

    asyncio.run(run())


def test_the_queue_is_bounded(target: str) -> None:
    async def run() -> None:
        async with serving(load(target), capacity=3) as engine:
            async with engine.generate(prompt(PROMPTS[0]), LONG.model_copy(update={"n": 2})):
                with pytest.raises(QueueFull, match="2 sequences are running or waiting, and 3 may") as full:
                    await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
                assert full.value.retry_after > 0
                with pytest.raises(RequestError, match=r"asks for 4 sequences.*takes 3 at a time"):
                    await finish(engine.generate(prompt(PROMPTS[0]) * 2, SHORT))
            (output,) = await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
            assert output.finished

    asyncio.run(run())


def test_of_several_prompts_all_are_taken_or_none(target: str) -> None:
    llm = load(target)

    async def run() -> None:
        async with serving(llm) as engine:
            with pytest.raises(RequestError, match="token id 9999"):
                await finish(engine.generate([TextPrompt(PROMPTS[0]), TextPrompt([9999])], LONG))
            await until_free(llm)
            while llm.engine.unfinished:
                await asyncio.sleep(0.001)

    asyncio.run(run())


@pytest.mark.parametrize(("owner", "method"), [(Sampler, "rows"), (OutputText, "push")])
def test_a_fault_in_one_request_ends_that_request(
    target: str, owner: type, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted in what belongs to the request whose seed is 13."""
    llm = load(target)
    broken: set[int] = set()
    planted.fail_of(monkeypatch, owner, method, broken)

    def spoil(request: Request) -> None:
        if request.params.seed == 13:
            broken.add(id(request.sampler if owner is Sampler else request.text))

    params = SHORT.model_copy(update={"n": 1, "seed": 13, "logit_bias": {7: 1.0}})  # which is an edit

    async def run() -> None:
        async with serving(llm) as engine:
            staying = [
                asyncio.create_task(finish(engine.generate(prompt(tokens), SHORT))) for tokens in PROMPTS
            ]
            planted.spoil_requests(monkeypatch, llm, spoil)
            (output,) = await finish(engine.generate(prompt(PROMPTS[0]), params))
            assert output.outputs[0].finish_reason == "error"
            assert output.error == "an internal error ended this request; the log says more"
            for tokens, (other,) in zip(PROMPTS, await asyncio.gather(*staying), strict=True):
                assert token_ids(other) == token_ids(expected(target, tokens, SHORT))
            await until_free(llm)

    asyncio.run(run())


def test_a_failed_step_ends_what_ran_in_it(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it could not be confined."""
    llm = load(target, max_num_seqs=2)
    planted.fail(monkeypatch, llm.engine.scheduler, "_schedule", lambda n: n in (2, 3))  # also without drafts
    params = SHORT.model_copy(update={"n": 1})

    async def run() -> None:
        async with serving(llm) as engine:
            calls = [finish(engine.generate(prompt(tokens), params)) for tokens in PROMPTS]
            results = await asyncio.gather(*calls, return_exceptions=True)
            for result in results[:2]:
                assert isinstance(result, EngineFailed)
            for tokens, result in zip(PROMPTS[2:], results[2:], strict=True):
                assert isinstance(result, list)
                assert token_ids(result[0]) == token_ids(expected(target, tokens, params))
            await until_free(llm)
            assert engine.stopped is None

    asyncio.run(run())


def test_who_finished_in_a_failed_step_is_gone(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it could not be confined."""
    llm = load(target)
    planted.fail(monkeypatch, llm.engine, "_release_finished", lambda number: number == 0)

    async def run() -> None:
        async with serving(llm) as engine:
            with pytest.raises(EngineFailed):
                await finish(engine.generate(prompt(PROMPTS[0]), SamplingParams(max_tokens=1)))
            await until_free(llm)
            (output,) = await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
            assert token_ids(output) == token_ids(expected(target, PROMPTS[0], SHORT))

    asyncio.run(run())


def test_what_grows_with_a_request_is_done_in_neither_thread_that_others_wait_for(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokenizing bad words, building samplers, and making a grammar's matchers."""
    llm = load(target)
    done_in: dict[str, str] = {}

    def watched(name: str, sound: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            done_in[name] = threading.current_thread().name
            return sound(*args, **kwargs)

        return call

    for name in ("_bad_words", "build_sampler", "InGrammar", "Detokenizer"):
        monkeypatch.setattr(admission, name, watched(name, getattr(admission, name)))
    params = SamplingParams(
        bad_words=("the end", "on"), structured_outputs=StructuredOutputs(regex="[a-c]{1,9}")
    )

    async def run() -> None:
        async with serving(llm) as engine:
            await finish(engine.generate(prompt(PROMPTS[0]), params))

    asyncio.run(run())
    assert len(done_in) == 4
    assert not {*done_in.values()} & {"outrider-engine", threading.current_thread().name}


def test_a_call_that_cannot_be_prepared_is_told_so(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = load(target)

    async def run() -> None:
        async with serving(llm) as engine:
            with monkeypatch.context() as patch:
                planted.fail(patch, admission, "build_sampler")
                with pytest.raises(EngineFailed, match="an internal error ended this request"):
                    await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
            assert engine.num_sequences == 0
            (output,) = await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
            assert token_ids(output) == token_ids(expected(target, PROMPTS[0], SHORT))

    asyncio.run(run())


def test_a_text_that_cannot_be_ended_stops_nobody_else(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a client leaves, its text is flushed."""
    llm = load(target)

    async def run() -> None:
        async with serving(llm) as engine:
            async with engine.generate(prompt(PROMPTS[2]), LONG) as call:
                await anext(call)
                planted.fail(monkeypatch, OutputText, "finish")
            await until_free(llm)
            monkeypatch.undo()
            (output,) = await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
            assert token_ids(output) == token_ids(expected(target, PROMPTS[0], SHORT))

    asyncio.run(run())


def test_draining(target: str) -> None:
    """What runs is finished, nothing else is taken, and what takes too long is ended."""
    llm = load(target)

    async def run() -> None:
        async with serving(llm) as engine:
            running = asyncio.create_task(finish(engine.generate(prompt(PROMPTS[0]), SHORT)))
            await asyncio.sleep(0)
            draining = asyncio.create_task(engine.drain(timeout=60))
            await asyncio.sleep(0)
            with pytest.raises(EngineStopped, match="shutting down"):
                await finish(engine.generate(prompt(PROMPTS[1]), SHORT))
            assert await draining
            (output,) = await running
            assert token_ids(output) == token_ids(expected(target, PROMPTS[0], SHORT))
        async with serving(llm) as engine:
            running = asyncio.create_task(finish(engine.generate(prompt(PROMPTS[0]), LONG)))
            await asyncio.sleep(0)
            assert not await engine.drain(timeout=0)
            with pytest.raises(EngineStopped, match="shutting down"):
                await running
            await until_free(llm)

    asyncio.run(run())


def test_an_end_does_not_wait_for_a_grammar(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = load(target)
    begun = threading.Event()

    def compile_for_ever(_: Any, given_up: threading.Event) -> Any:
        begun.set()
        assert given_up.wait(30)
        raise GivenUp

    monkeypatch.setattr(llm.engine.grammars, "compile", compile_for_ever)
    params = SamplingParams(structured_outputs=StructuredOutputs(regex="a+"))

    async def run() -> None:
        async with serving(llm) as engine:
            waiting = asyncio.create_task(finish(engine.generate(prompt(PROMPTS[0]), params)))
            assert await asyncio.to_thread(begun.wait, 30)
            assert not await engine.drain(timeout=0)
            with pytest.raises(EngineStopped, match="shutting down"):
                await waiting
            assert engine.num_sequences == 0

    asyncio.run(run())


@pytest.mark.parametrize("prepared", [False, True])
def test_who_is_there_at_the_close_is_told(target: str, prepared: bool) -> None:
    """Also who is still being prepared, and would be queued for a thread that is gone."""

    async def run() -> None:
        async with serving(load(target)) as engine:
            generation = engine.generate(prompt(PROMPTS[0]), LONG)
            running = asyncio.create_task(finish(generation))
            while not (generation.ids if prepared else engine.num_sequences):
                await asyncio.sleep(0)
        async with asyncio.timeout(30):
            with pytest.raises(EngineStopped, match="shutting down"):
                await running

    asyncio.run(run())


@pytest.mark.parametrize("method", ["queue", "step"])
def test_a_fault_that_cannot_be_confined_is_told_to_all(
    target: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = load(target)
    planted.fail(monkeypatch, llm.engine, method, error=SystemExit)

    async def run() -> None:
        async with serving(llm) as engine:
            with pytest.raises(EngineStopped, match="stopped after a fault"):
                await finish(engine.generate(prompt(PROMPTS[0]), SHORT))
            assert engine.stopped is not None
            with pytest.raises(EngineStopped):
                await finish(engine.generate(prompt(PROMPTS[0]), SHORT))

    asyncio.run(run())
