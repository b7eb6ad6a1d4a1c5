"""The playground on a phone: the page is as long as what it shows, and the answer is in view as it comes."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tests.engine.helpers import load
from tests.serving.browser import answer, complete, fill, needs_chromium, never_end, say
from tests.serving.harness import Gate, Served, running, until

PHONE: Any = {"width": 390, "height": 844}

pytestmark = needs_chromium

ENDS = """() => {
  const page = document.documentElement;
  const bottom = (element) => element.getBoundingClientRect().bottom + scrollY;
  const shown = [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility());
  const within = shown.filter((e) => !e.closest(".strip, .scrolls"));
  return [page.scrollHeight, Math.max(bottom(document.body), ...within.map(bottom))];
}"""
IN_VIEW = """(box) => {
  const { top, bottom } = box.lastElementChild.getBoundingClientRect();
  return top >= 0 && bottom <= document.documentElement.clientHeight;
}"""


def test_the_page_is_as_long_as_what_it_shows(chained: Served, page: Page) -> None:
    """What a strip or a table holds beyond its own height is scrolled there, and makes no void below."""
    page.set_viewport_size(PHONE)
    page.goto(chained.url)
    for number in (1, 2):
        page.get_by_text("Fields of the request").click()
        fill(page, most_tokens=250, temperature=0.8)
        never_end(page)
        say(page)
        complete(page)
        page.get_by_text("Tokens as a table").nth(number - 1).click()
        height, end = page.evaluate(ENDS)
        assert height <= end + 1
        strip = page.get_by_role("list", name="Drafts, step by step").nth(number - 1)
        assert strip.evaluate("(strip) => strip.scrollHeight > 2 * strip.clientHeight")
        page.get_by_text("Fields of the request").click()


def test_the_answer_is_in_view(target: str, page: Page) -> None:
    """While it comes and at its end; a reader who scrolls up is left there."""
    with running(load(target, "ngram", num_speculative_tokens=3)) as served:
        gate = Gate(served)
        page.set_viewport_size(PHONE)
        page.goto(served.url)
        page.get_by_text("Fields of the request").click()
        fill(page, most_tokens=500, temperature=0.8)
        never_end(page)
        page.get_by_text("Fields of the request").click()
        gate.shut(after=120)
        say(page)
        expect(answer(page).locator(".token").nth(80)).to_be_attached()
        in_view(page)
        gate.open()
        complete(page)
        in_view(page)

        gate.shut(after=60)
        say(page, "on")
        expect(answer(page, 2).locator(".token").nth(20)).to_be_attached()
        page.mouse.wheel(0, -3000)
        until(lambda: page.evaluate("scrollY") == 0)
        gate.open()
        complete(page)
        assert page.evaluate("scrollY") == 0


def in_view(page: Page) -> None:
    until(lambda: bool(answer(page).evaluate(IN_VIEW)))
