"""How the playground explains the method: an example, each answer pass by pass, races at one click."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.serving.browser import answer, complete, fake, fill, needs_chromium, say, spelt
from tests.serving.harness import Served

pytestmark = needs_chromium

DRAFTED: dict[str, Any] = {
    "tokens": [
        {"text": " the", "source": "draft"},
        {"text": " end", "source": "draft"},
        {"text": " of", "source": "bonus"},
        {"text": " all", "source": "correction"},
    ],
    "drafts": [
        {"position": 1, "drafter": "head", "tokens": [" the", " end"], "accepted": 2, "probabilities": None},
        {"position": 4, "drafter": "ngram", "tokens": [" it", " then"], "accepted": 0, "probabilities": None},
    ],
}


def faked(page: Page, served: Served) -> None:
    """An answer of five tokens in three passes."""
    fake(
        page,
        {"delta": {"content": "To"}, "speculation_trace": spelt("To")},
        {"delta": {"content": " the end of all"}, "speculation_trace": DRAFTED, "finish_reason": "stop"},
    )
    page.goto(served.url)
    say(page)
    complete(page)


def later(box: Locator) -> int:
    return box.locator(".later").count()


def test_what_the_page_begins_with(chained: Served, page: Page) -> None:
    """A sentence, and an example that plays by itself, unless the reader wants nothing to move."""
    page.goto(chained.url)
    expect(page.get_by_role("heading", level=2).first).to_have_text("The same answer, in fewer passes")
    expect(page.locator("#intro .lead")).to_have_count(1)
    example = page.get_by_role("group", name="An example of the method")
    passes = example.get_by_role("list").locator("li")
    expect(passes).to_have_count(5)
    assert later(example) > 0
    example.get_by_role("button", name="Pause").click()
    shown = later(example)
    example.get_by_role("button", name="Next pass").click()
    assert later(example) == shown - 1
    assert passes.nth(5 - shown).evaluate("(one) => one.getAnimations({ subtree: true }).length") > 0

    page.emulate_media(reduced_motion="reduce")
    page.reload()
    expect(example.get_by_role("button", name="Replay")).to_be_visible()
    assert later(example) == 0
    example.get_by_role("button", name="Pass before").click()
    assert later(example) == 1
    assert example.evaluate("(one) => one.getAnimations({ subtree: true }).length") == 0


def test_the_sequence_of_an_answer(chained: Served, page: Page) -> None:
    """Below each guess stands what the target says; what comes after the pass that is shown is faded."""
    faked(page, chained)
    expect(page.locator(".figures .headline")).to_have_text("2 passes saved: 5 tokens in 3 passes")
    assert page.locator(".bar-passes").evaluate("(bar) => bar.style.width") == "60%"
    passes = page.get_by_role("list", name="Drafts, step by step").locator("li")
    rows = passes.evaluate_all("""(all) => all.map((one) => [".guess", ".said"].map((row) =>
      [...one.querySelectorAll(row)].map((chip) => chip.lastChild.data).join(" ")))""")
    assert rows == [["", "To"], ["the end", "the end of"], ["it then", "all"]]
    lefts = (
        passes.nth(2)
        .locator(".guess, .said")
        .evaluate_all(
            "all => all.map((one) => one.getBoundingClientRect()).map(({ left, width }) => left + width / 2)"
        )
    )
    assert abs(lefts[0] - lefts[1]) < 1  # the correction, below the guess that was wrong

    panel = page.locator(".panel", has=passes)
    panel.get_by_role("button", name="Pass before").click()
    assert (later(panel), later(answer(page))) == (1, 1)
    expect(passes.nth(1)).to_have_class("pass now acted")
    panel.get_by_role("slider", name="Passes shown").fill("1")
    assert (later(panel), later(answer(page))) == (2, 4)
    panel.get_by_role("combobox", name="Pace").select_option("as it came")
    panel.get_by_role("button", name="Replay").click()
    expect(panel.locator(".later")).to_have_count(0)
    expect(panel.get_by_role("button", name="Replay")).to_be_visible()
    assert later(answer(page)) == 0


@pytest.mark.parametrize("name", ["Code edit", "JSON", "Story"])
def test_a_race_at_one_click(chained: Served, page: Page, name: str) -> None:
    page.goto(chained.url)
    fill(page, most_tokens=12)
    page.get_by_role("button", name=name).click()
    expect(page.locator("#verdict")).to_contain_text("Identical: all ")
    expect(page.locator("#prompt")).not_to_have_value("")
    expect(page.get_by_role("radio", name="Race")).to_be_checked()
    if name == "JSON":
        assert (page.locator(".lanes .answer").first.text_content() or "").lstrip().startswith("{")


def test_a_prompt_at_one_click(chained: Served, page: Page) -> None:
    page.goto(chained.url)
    fill(page, most_tokens=5)
    page.get_by_role("button", name="Explain it").click()
    complete(page)
    expect(page.locator(".user p")).to_have_text("Explain in three sentences why the sky is blue.")
    expect(page.locator("#intro")).to_be_hidden()
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator("#intro")).to_be_visible()
