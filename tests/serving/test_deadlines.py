"""A request has so much time, and the end of a server has, whatever keeps them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any, cast

import pytest

from outrider.serving.deadlines import Deadline
from outrider.serving.errors import ApiError
from outrider.serving.server import Stopping
from tests.engine.helpers import load
from tests.serving.harness import PATIENCE, running


def test_time_that_is_up_before_the_engine_is_asked(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokenizing, or whatever else comes first, counts."""
    with running(load(target), request_timeout=0.2) as served:

        async def forever(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(PATIENCE)

        monkeypatch.setattr(served.service.prompts, "of_texts", forever)
        for stream in (False, True):
            answer = served.post("/v1/completions", prompt="on", stream=stream)
            assert answer.status_code == 504
            assert answer.json()["error"]["message"] == (
                "the request took longer than 0.2 s; ask for fewer tokens"
            )


def test_what_never_waits_ends_too() -> None:
    """As where a client reads what was generated long ago, chunk by chunk."""

    async def read() -> int:
        inbox: asyncio.Queue[int] = asyncio.Queue()
        for number in range(3):
            inbox.put_nowait(number)
        deadline = Deadline(asyncio.get_running_loop().time() - 1, 1.0)
        async with deadline.kept():
            return await inbox.get()

    with pytest.raises(ApiError, match="took longer than 1 s"):
        asyncio.run(read())


class Engine:
    """One whose sequences never end by themselves."""

    num_sequences = 1

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def drain(self, timeout: float) -> bool:
        self.waited.append(timeout)
        await asyncio.sleep(timeout)
        return False


class Anything:
    def __init__(self, **values: Any) -> None:
        self.__dict__ |= values


def stopping(engine: Engine, ended: threading.Event, grace: float) -> tuple[Stopping, Any]:
    service = Anything(engine=engine, config=Anything(shutdown_timeout=PATIENCE))
    server = Anything(should_exit=False)
    return Stopping(cast(Any, service), cast(Any, server), grace=grace, end=ended.set), server


def test_two_signals_at_once() -> None:
    """The second does not have to wait until the first was heard."""

    async def run() -> None:
        engine, ended = Engine(), threading.Event()
        both, server = stopping(engine, ended, PATIENCE)
        both.on_signal(15, None)
        both.on_signal(15, None)
        while not server.should_exit:
            await asyncio.sleep(0.001)
        assert engine.waited == [PATIENCE, 0.0]
        assert not ended.is_set()

    asyncio.run(run())


def test_a_second_signal_ends_what_does_not_end() -> None:
    """Here the event loop itself."""

    async def run() -> None:
        ended = threading.Event()
        both, _ = stopping(Engine(), ended, 0.02)
        both.on_signal(15, None)
        assert not ended.wait(0.1)  # there is time until the shutdown's timeout
        both.on_signal(15, None)
        assert ended.wait(PATIENCE)

    asyncio.run(run())
