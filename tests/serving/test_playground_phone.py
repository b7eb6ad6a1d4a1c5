"""The playground on a phone: the page is as long as what it shows, and the answer is in view as it comes."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, Page, expect

from tests.engine.helpers import load
from tests.serving.browser import answer, complete, fake, fill, needs_chromium, never_end, say, spelt, watched
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
  const boxOf = (name) => document.querySelector(name).getBoundingClientRect();
  return top >= boxOf("header").bottom && bottom <= boxOf("form").top;
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


def test_a_tooltip_by_touch(chained: Served, browser: Browser) -> None:
    """It stays after the finger is lifted, and goes when another place is touched."""
    with watched(browser, viewport=PHONE, has_touch=True, is_mobile=True, color_scheme="dark") as page:
        fake(page, {"delta": {"content": "the end"}, "speculation_trace": spelt("the", " end")})
        page.goto(chained.url)
        say(page)
        complete(page)
        tip = page.get_by_role("tooltip")
        for text, number in (("the", 1), ("end", 2)):
            answer(page).locator(".token", has_text=text).tap()
            expect(tip).to_contain_text(f"token {number}:")
            box = tip.bounding_box()
            assert box is not None
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= PHONE["width"]
        page.locator(".figures").tap()
        expect(tip).to_be_hidden()
        assert page.evaluate("[innerWidth, document.scrollingElement.scrollWidth]") == [390, 390]


def test_the_composer_is_in_view(chained: Served, page: Page) -> None:
    """Wherever the page is scrolled, before and after an answer that is longer than the screen."""
    page.set_viewport_size(PHONE)
    fake(page, {"delta": {"content": "line\n" * 80}, "speculation_trace": spelt("line\n" * 80)})
    page.goto(chained.url)
    for asked in (False, True):
        if asked:
            say(page)
            complete(page)
        assert page.evaluate("document.scrollingElement.scrollHeight") > PHONE["height"]
        for place in (0, 300, 10**6):
            page.evaluate("(place) => scrollTo(0, place)", place)
            box = page.locator(".composer").bounding_box()
            assert box is not None
            assert box["y"] > 0
            assert box["y"] + box["height"] <= PHONE["height"]
