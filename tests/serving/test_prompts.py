"""Who sends much, or has it laid out by a slow template, holds nobody else's prompt up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from outrider.engine.generation import TextPrompt
from outrider.serving import prompts as module
from outrider.serving.prompts import Prompts
from tests.serving.harness import PATIENCE


class Model:
    """Lays out, and tokenizes what is long, when it is told to."""

    tokenizer = SimpleNamespace(chat_template="a template")

    def __init__(self) -> None:
        self.go = threading.Event()
        self.long = self.most = 0

    def lay_out(self, messages: Any, **_: Any) -> str:
        assert self.go.wait(PATIENCE)
        return "laid out"

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        if len(text) < module.LONG:
            return [len(text)]
        self.long += 1
        self.most = max(self.most, self.long)
        assert self.go.wait(PATIENCE)
        self.long -= 1
        return [0]


@pytest.mark.parametrize("chat", [False, True])
def test_a_short_text_waits_for_no_long_ones(chat: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    released: list[str] = []
    monkeypatch.setattr(module, "release_freed", lambda: released.append("memory"))
    model = Model()
    prompts = Prompts(cast(Any, model), vocab_size=1)

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
        slow: Sequence[asyncio.Task[Any]] = [
            asyncio.create_task(prompts.of_chat([]) if chat else prompts.of_texts(["x" * module.LONG]))
            for _ in range(4)
        ]
        await asyncio.sleep(0)  # they begin
        async with asyncio.timeout(PATIENCE):
            assert await prompts.of_texts(["four"]) == [TextPrompt([4], "four")]
        assert not any(task.done() for task in slow)
        model.go.set()
        await asyncio.gather(*slow)

    asyncio.run(run())
    assert model.most == (0 if chat else 1)
    assert len(released) == (0 if chat else 4)
