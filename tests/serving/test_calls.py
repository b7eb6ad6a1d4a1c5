"""Whatever ends a call on its way, its generation is left."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from outrider.serving.calls import Call
from outrider.serving.deadlines import Deadline


class Request:
    async def receive(self) -> Any:
        await asyncio.sleep(60)


class Generation:
    """Time is up in the moment in which it has been entered."""

    def __init__(self) -> None:
        self.left = False

    async def enter(self) -> None:
        self.call.cancel()

    def leave(self) -> None:
        self.left = True

    call: asyncio.Task[Any]


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_that_is_cancelled_when_it_has_just_entered(stream: bool) -> None:
    async def run() -> Generation:
        generation = Generation()
        call = Call(cast(Any, generation), cast(Any, None), deadline=Deadline.after(60), log={})
        generation.call = asyncio.create_task(call.respond(cast(Any, Request()), stream=stream))
        with pytest.raises(asyncio.CancelledError):
            await generation.call
        return generation

    assert asyncio.run(run()).left
