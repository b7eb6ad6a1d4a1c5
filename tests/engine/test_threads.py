"""One LLM for several threads: each gets what it would get alone, and nothing is lost."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from outrider import LLM, RequestError, SamplingParams
from outrider.engine.scheduler import Schedule
from outrider.engine.watcher import Watcher
from outrider.fair_lock import FairLock
from tests import planted
from tests.engine.helpers import PROMPTS, expected, load, token_ids
from tests.watchers import check

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.timeout(60)]

PARAMS = SamplingParams(temperature=1.0, seed=4, max_tokens=16, ignore_eos=True, n=2)


def check_free(llm: LLM) -> None:
    assert not llm.engine.unfinished
    assert not llm.engine._groups
    assert not llm.shared.requests
    assert llm.engine.target.pool.num_free == llm.engine.target.pool.num_blocks


def drain(stream: Generator[Any, None, Any]) -> tuple[list[Any], Any]:
    """What a stream yields, and what it returns."""
    increments = []
    while True:
        try:
            increments.append(next(stream))
        except StopIteration as end:
            return increments, end.value


@pytest.fixture
def llm(target: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LLM]:
    """Its engine notices two threads in it at a time, and lets them have the time to meet."""
    llm = load(target, "ngram", num_speculative_tokens=3, kv_cache_memory=100_000, max_model_len=112)
    inside: list[str] = []

    def watched(sound: Callable[..., Any]) -> Any:
        def call(*arguments: Any) -> Any:
            inside.append(threading.current_thread().name)
            time.sleep(0.0002)
            try:
                return sound(*arguments)
            finally:
                assert len(inside) == 1, f"{inside} are in the engine at a time"
                inside.pop()

        return call

    for name in ("step", "queue", "take"):
        monkeypatch.setattr(llm.engine, name, watched(getattr(llm.engine, name)))
    yield llm
    assert not inside


def test_threads_share_an_llm(target: str, llm: LLM) -> None:
    """Calls with one prompt and with several, streams that are read to the end and some that are left."""

    def generate(start: int) -> None:
        prompts = [PROMPTS[(start + i) % len(PROMPTS)] for i in range(1 + start % 3)]
        for prompt, output in zip(prompts, llm.generate(prompts, PARAMS, use_tqdm=False), strict=True):
            assert token_ids(output) == token_ids(expected(target, prompt, PARAMS))

    def stream(start: int) -> None:
        prompt = PROMPTS[start % len(PROMPTS)]
        increments, output = drain(llm.stream(prompt, PARAMS))
        assert token_ids(output) == token_ids(expected(target, prompt, PARAMS))
        for completion in output.outputs:
            told = [i.token_ids for i in increments if i.index == completion.index]
            assert sum(told, ()) == completion.token_ids

    def leave(start: int) -> None:
        stream = llm.stream(PROMPTS[start % len(PROMPTS)], PARAMS)
        for _ in range(1 + start % 3):
            next(stream)
        stream.close()

    def fail(start: int) -> None:
        with pytest.raises(RequestError, match="token id 9999"):
            llm.generate([PROMPTS[start % len(PROMPTS)], [9999]], PARAMS, use_tqdm=False)

    def work(number: int) -> None:
        for start in range(3):
            (generate, stream, leave, fail)[(number + start) % 4](number + start)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    check_free(llm)


def test_nobody_waits_for_the_end_of_anothers_call(target: str, llm: LLM) -> None:
    """A short request ends while a long one runs, in another thread and in the same batch."""
    long = SamplingParams(temperature=0, max_tokens=90, ignore_eos=True)
    begun, ended = threading.Event(), threading.Event()

    def run_long() -> None:
        for increment in llm.stream(PROMPTS[0], long):
            begun.set()
            if increment.finish_reason is not None:
                ended.set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run_long)
        assert begun.wait(30)
        llm.generate([PROMPTS[1]], PARAMS.model_copy(update={"max_tokens": 2}), use_tqdm=False)
        assert not ended.is_set()
        running.result()
    check_free(llm)


def test_a_half_read_stream_keeps_nobody_waiting(target: str, llm: LLM) -> None:
    """Neither its own thread nor another; it goes on where it was."""
    stream = llm.stream(PROMPTS[0], PARAMS)
    first = next(stream)

    def other() -> None:
        (output,) = llm.generate([PROMPTS[1]], PARAMS, use_tqdm=False)
        assert token_ids(output) == token_ids(expected(target, PROMPTS[1], PARAMS))

    other()
    with ThreadPoolExecutor(1) as threads:
        threads.submit(other).result(30)
    increments, output = drain(stream)
    assert token_ids(output) == token_ids(expected(target, PROMPTS[0], PARAMS))
    assert sum(len(i.token_ids) for i in (first, *increments)) == sum(map(len, token_ids(output)))
    check_free(llm)


def test_a_stream_that_is_collected_in_the_middle_of_a_step(target: str, llm: LLM) -> None:
    """Its end must wait neither for that step nor change what it works on."""

    class Holder:
        pass

    holder: Any = Holder()
    holder.stream, holder.itself = llm.stream(PROMPTS[0], PARAMS), holder
    next(holder.stream)
    del holder

    class Collecting(Watcher):
        first = True

        def scheduled(self, schedule: Schedule) -> None:
            if self.first:
                gc.collect()
            self.first = False
            running = llm.engine.scheduler.running
            check(all(work.request in running for work in schedule.work), "a request was taken out of a step")

    llm.engine.watchers.append(Collecting())
    (output,) = llm.generate([PROMPTS[1]], PARAMS, use_tqdm=False)
    assert token_ids(output) == token_ids(expected(target, PROMPTS[1], PARAMS))
    check_free(llm)


@pytest.mark.parametrize("late", [False, True])
def test_a_ctrl_c_while_a_request_is_queued(llm: LLM, late: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of a batch: neither is left behind."""
    planted.fail(monkeypatch, llm.engine, "queue", lambda n: n in (1, 2), late=late, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(PROMPTS[:3], PARAMS, use_tqdm=False)
    check_free(llm)
    stream = llm.stream(PROMPTS[0], PARAMS)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    check_free(llm)


def test_a_step_that_fails_ends_the_call_that_made_it(
    target: str, llm: LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = llm.stream(PROMPTS[0], PARAMS)
    next(stream)
    with monkeypatch.context() as patch:
        planted.fail(patch, llm.engine.scheduler, "_schedule")
        with pytest.raises(ZeroDivisionError):
            llm.generate([PROMPTS[1]], PARAMS, use_tqdm=False)
    _, output = drain(stream)
    assert token_ids(output) == token_ids(expected(target, PROMPTS[0], PARAMS))
    check_free(llm)


def test_who_waits_for_the_lock_is_next() -> None:
    lock = FairLock()
    waiting, order = threading.Event(), []

    def wait() -> None:
        waiting.set()
        with lock:
            order.append("who waited")

    other = threading.Thread(target=wait)
    with lock:
        assert not lock.take_if_free()
        other.start()
        waiting.wait()
        while not lock._next.locked():
            time.sleep(0.001)
    with lock:
        order.append("who had it")
    other.join()
    assert order == ["who waited", "who had it"]
    assert lock.take_if_free()
    lock.release()
