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
  const within = shown.filter((e) => !e.closest(".passes, .scrolls"));
  return [page.scrollHeight, Math.max(bottom(document.body), ...within.map(bottom))];
}"""
IN_VIEW = """(box) => {
  const seen = [...box.querySelectorAll(".token")].filter((token) => token.checkVisibility());
  const { top, bottom } = seen.at(-1).getBoundingClientRect();
  const [over, under] = ["header", "form"].map((name) => document.querySelector(name).getBoundingClientRect());
  return top >= over.bottom && bottom <= under.top;
}"""


def test_the_page_is_as_long_as_what_it_shows(chained: Served, page: Page) -> None:
    """What a strip or a table holds beyond its own height is scrolled there, and makes no void below."""
    page.set_viewport_size(PHONE)
    page.goto(chained.url)
    for number in (1, 2):
        settings(page, most_tokens=250, temperature=0.8)
        say(page)
        complete(page)
        page.get_by_text("Tokens as a table").nth(number - 1).click()
        height, end = page.evaluate(ENDS)
        assert height <= end + 1
        passes = page.get_by_role("list", name="Drafts, step by step").nth(number - 1)
        assert passes.evaluate("(passes) => passes.scrollWidth > 5 * passes.clientWidth")


def test_the_answer_is_in_view(target: str, page: Page) -> None:
    """While it comes and at its end; a reader who scrolls up is left there."""
    with running(load(target, "ngram", num_speculative_tokens=3)) as served:
        gate = Gate(served)
        page.set_viewport_size(PHONE)
        page.goto(served.url)
        settings(page, most_tokens=500, temperature=0.8)
        gate.shut(after=120)
        say(page)
        expect(answer(page).locator(".token").nth(40)).to_be_attached()
        in_view(page)
        gate.open()
        complete(page)
        in_view(page)

        gate.shut(after=60)
        say(page, "on")
        expect(answer(page, 2).locator(".token").nth(10)).to_be_attached()
        page.mouse.wheel(0, -3000)
        until(lambda: page.evaluate("scrollY") == 0)
        gate.open()
        complete(page)
        assert page.evaluate("scrollY") == 0


def settings(page: Page, **fields: Any) -> None:
    """Such fields, in a part that is closed again."""
    button = page.get_by_role("button", name="Settings")
    button.click()
    fill(page, **fields)
    never_end(page)
    button.click()


def in_view(page: Page) -> None:
    until(lambda: bool(answer(page).evaluate(IN_VIEW)))
