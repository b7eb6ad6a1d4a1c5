"""Answers of the playground that are copied, asked for again, linked to and saved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageColor
from playwright.sync_api import Browser, Page, Request, expect

from tests.serving.browser import answer, complete, fake, fill, needs_chromium, never_end, say, spelt, watched
from tests.serving.harness import Served

KEY = "open-sesame"

pytestmark = needs_chromium


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with watched(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        yield page


def asked(page: Page) -> list[dict[str, Any]]:
    """The bodies of requests for answers, as they are sent."""
    bodies: list[dict[str, Any]] = []

    def note(request: Request) -> None:
        if request.url.endswith("/chat/completions"):
            bodies.append(json.loads(request.post_data or ""))

    page.on("request", note)
    return bodies


def press(page: Page, label: str) -> None:
    page.get_by_role("button", name=label, exact=True).last.click()


def copied(page: Page, label: str) -> str:
    press(page, label)
    expect(page.get_by_role("status")).to_contain_text("copied")
    return str(page.evaluate("navigator.clipboard.readText()"))


def saved(page: Page, label: str) -> bytes:
    with page.expect_download() as download:
        press(page, label)
    return Path(download.value.path()).read_bytes()


def test_a_link(chained: Served, page: Page) -> None:
    """It says the same again, though no seed was given: the page drew it. Nothing is sent before that."""
    bodies = asked(page)
    page.goto(chained.url)
    fill(page, most_tokens=30, temperature=1.1, system_message="be brief")
    never_end(page)
    say(page)
    complete(page)
    say(page, "on")
    expect(answer(page, 2)).to_be_visible()
    complete(page)
    said = answer(page, 2).text_content()
    page.locator("#key").evaluate("(key, value) => { key.value = value; }", KEY)
    link = copied(page, "Copy link")
    assert KEY not in link
    assert link.startswith(f"{chained.url}/#")

    page.goto("about:blank")
    page.goto(link)
    expect(page.get_by_role("status")).to_contain_text("nothing is sent yet")
    assert len(bodies) == 2
    expect(page.get_by_label("Temperature")).to_have_value("1.1")
    expect(page.get_by_role("article")).to_have_count(2)
    expect(page.locator("#prompt")).to_have_value("on")
    page.locator("#prompt").press("Enter")
    complete(page)
    assert bodies[2] == bodies[1]
    assert answer(page).text_content() == said


def test_a_damaged_link(chained: Served, page: Page) -> None:
    page.goto(f"{chained.url}/#prompt=on&mode=chat&before=[1")
    expect(page.get_by_role("alert")).to_have_text("This link is damaged")
    expect(page.locator("#prompt")).to_have_value("")


def test_regenerated(chained: Served, page: Page) -> None:
    """In the place of the last answer, of the same conversation, with another seed."""
    bodies = asked(page)
    page.goto(chained.url)
    fill(page, most_tokens=20, temperature=1.1)
    never_end(page)
    for number, text in ((1, "the end"), (2, "on")):
        say(page, text)
        expect(answer(page, number)).to_be_visible()
        complete(page)
    expect(page.get_by_role("button", name="Regenerate")).to_have_count(1)
    press(page, "Regenerate")
    expect(answer(page, 3)).to_be_visible()
    complete(page)
    expect(page.get_by_role("article")).to_have_count(4)
    assert bodies[2]["messages"] == bodies[1]["messages"]
    assert bodies[2]["seed"] != bodies[1]["seed"]


def test_copied_and_saved(chained: Served, page: Page) -> None:
    """The text as the model wrote it; JSON with all that is known; a picture in the colours of the page."""
    draft = {
        "position": 1,
        "drafter": "head",
        "tokens": ["*it*", " was"],
        "accepted": 1,
        "probabilities": None,
    }
    trace = {
        "tokens": [{"text": "*it*", "source": "draft"}, {"text": " is", "source": "correction"}],
        "drafts": [draft],
    }
    fake(
        page,
        {"delta": {"content": "So "}, "speculation_trace": spelt("So ")},
        {"delta": {"content": "*it* is"}, "speculation_trace": trace, "finish_reason": "stop"},
    )
    page.goto(chained.url)
    page.locator("#key").evaluate("(key, value) => { key.value = value; }", KEY)
    say(page, "how?")
    complete(page)
    assert copied(page, "Copy") == "So *it* is"

    told = saved(page, "Save JSON").decode()
    assert KEY not in told
    form = json.loads(told)
    assert form["request"]["messages"] == [{"role": "user", "content": "how?"}]
    (one,) = form["answers"]
    assert (one["text"], one["finish_reason"]) == ("So *it* is", "stop")
    assert [
        (token["text"], token["source"], token["drafter"], token["instead_of"]) for token in one["tokens"]
    ] == [
        ("So ", "target", None, None),
        ("*it*", "draft", "head", None),
        (" is", "correction", None, " was"),
    ]
    assert [step["draft"] for step in one["passes"]] == [None, draft]
    assert (one["figures"]["passes_saved"], one["figures"]["acceptance_rate"]) == (1, 0.5)

    picture = Image.open(BytesIO(saved(page, "Save picture"))).convert("RGB")
    assert picture.width == 2400
    root = "getComputedStyle(document.documentElement)"
    counts = {colour: count for count, colour in picture.getcolors(picture.width * picture.height) or ()}
    for look in ("draft-0", "correction"):
        colour = str(page.evaluate(f"{root}.getPropertyValue('--{look}')")).strip()
        assert counts[ImageColor.getrgb(colour)] > 500
