"""A browser for tests: Debian's Chromium, without a screen."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect, sync_playwright

PATIENCE_MS = 60_000.0  # for what should take none: the machine may be busy
NAMES = ("chromium", "chromium-browser", "google-chrome")
# A page draws the seeds of its requests. Here it draws the same ones every time, since a random model may say
# little that can be shown.
SAME_DRAWS = "let drawn = 0; Math.random = () => (drawn = (drawn * 69069 + 1) % 2 ** 32) / 2 ** 32;"


def executable() -> str | None:
    """Chromium: what the environment variable CHROMIUM says, or what is installed."""
    given = os.environ.get("CHROMIUM")
    return given or next((path for name in NAMES if (path := shutil.which(name))), None)


needs_chromium = pytest.mark.skipif(
    executable() is None,
    reason="no Chromium: install the package chromium, or say where it is in CHROMIUM",
)


@contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium, until the block ends. An event loop runs in this thread meanwhile: asyncio.run does not."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), timeout=4 * PATIENCE_MS)
        yield browser
        browser.close()


class Wire:
    """A way to a server that can be cut: a port of its own, from which everything is passed on."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Nothing passes any more, now or later."""
        for end in (self._listening, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection(("127.0.0.1", self._server))
                self._ends += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while some := source.recv(65536):
            sink.sendall(some)
        sink.shutdown(socket.SHUT_WR)


@contextmanager
def watched(browser: Browser, **options: Any) -> Iterator[Page]:
    """A page on which nothing goes wrong unseen, and that loads nothing from elsewhere. options: of its
    browser's context."""
    defaults: dict[str, Any] = {"viewport": {"width": 1280, "height": 900}}
    with browser.new_context(**defaults | options) as context:
        context.add_init_script(SAME_DRAWS)
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        wrong: list[str] = []
        asked: set[str] = set()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if "Security" in said.text else None)
        page.on("request", lambda request: asked.add(re.sub(r"(//[^/]*).*", r"\1", request.url)))
        yield page
        assert wrong == []
        assert len(asked) <= 1, asked


def fill(page: Page, **fields: Any) -> None:
    """Fields of the request, by their labels' words."""
    settings = page.get_by_role("complementary")
    for label, value in fields.items():
        settings.get_by_label(label.replace("_", " ").capitalize(), exact=True).fill(str(value))


def never_end(page: Page) -> None:
    """Answers are as long as they may be: those of a random model end early now and then. The focus stays."""
    page.locator("#extra").evaluate("""(extra) => { extra.value = '{"ignore_eos": true}'; }""")


def say(page: Page, text: str = "the end of the end") -> None:
    page.get_by_role("textbox", name="Message", exact=True).fill(text)
    page.get_by_role("button", name="Send").click()


def fake(page: Page, *choices: dict[str, Any]) -> list[dict[str, Any]]:
    """Requests are answered with chunks of these choices, by no server. Returns the bodies that are sent."""
    bodies: list[dict[str, Any]] = []
    chunks = [
        {"model": "fake", "choices": [{"index": 0, "finish_reason": None} | choice]} for choice in choices
    ]
    events = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]

    def fulfill(route: Route) -> None:
        bodies.append(json.loads(route.request.post_data or ""))
        route.fulfill(content_type="text/event-stream", body="".join([*events, "data: [DONE]\n\n"]))

    page.route("**/v1/chat/completions", fulfill)
    return bodies


def spelt(*texts: str, source: str = "target") -> dict[str, Any]:
    """The trace of tokens with these texts."""
    return {"tokens": [{"text": text, "source": source} for text in texts], "drafts": []}


def answer(page: Page, number: int = 1) -> Locator:
    return page.get_by_role("group", name=f"Answer {number}.")


def complete(page: Page) -> None:
    expect(page.get_by_role("status")).to_contain_text("The answer is complete")
