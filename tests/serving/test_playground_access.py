"""The playground for everybody: by keyboard, on a phone, in light and dark, to a screen reader."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.engine.helpers import load
from tests.serving.browser import answer, complete, fill, needs_chromium, never_end, say
from tests.serving.harness import Gate, Served, running

PHONE: Any = {"width": 360, "height": 740}

pytestmark = needs_chromium


def test_by_keyboard_alone(target: str, page: Page) -> None:
    """From the top of the page: to the message, sent, stopped, a race chosen."""
    with running(load(target, "ngram", num_speculative_tokens=3)) as served:
        gate = Gate(served)
        page.goto(served.url)
        never_end(page)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the message")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.type("the end")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("of the end")
        expect(page.get_by_role("textbox", name="Message", exact=True)).to_have_value("the end\nof the end")
        gate.shut(after=4)
        page.keyboard.press("Enter")
        expect(answer(page).locator(".token").first).to_be_attached()
        page.keyboard.press("Escape")
        expect(page.get_by_role("status")).to_have_text("Stopped.")
        expect(page.locator(".note")).to_contain_text("Stopped after")
        gate.open()
        served.until_idle()
        reached = set()
        for _ in range(40):
            page.keyboard.press("Tab")
            name = page.evaluate("document.activeElement.id || document.activeElement.name")
            if name == "mode" and name not in reached:
                page.keyboard.press("ArrowRight")
            reached.add(name)
        assert reached >= {
            "send",
            "clear",
            "mode",
            "length",
            "temperature",
            "max-tokens",
            "seed",
            "system",
            "extra",
        }
        expect(page.get_by_role("radio", name="Race")).to_be_checked()
        expect(page.get_by_role("heading", name="Race")).to_be_visible()


def test_a_phone(chained: Served, page: Page) -> None:
    """Nothing is wider than the screen, in either mode, and every control is large enough for a finger."""
    page.set_viewport_size(PHONE)
    page.goto(chained.url)
    assert not page.get_by_label("Seed").is_visible()  # the settings begin closed
    page.get_by_role("button", name="Settings").click()
    fill(page, most_tokens=120)
    never_end(page)
    page.keyboard.press("Escape")
    expect(page.get_by_role("complementary")).to_be_hidden()
    say(page)
    complete(page)
    page.get_by_text("Tokens as a table").click()
    assert overflow(page) <= 0
    answer(page).focus()
    page.keyboard.press("End")
    assert overflow(page) <= 0
    page.get_by_role("radio", name="Race").check()
    page.locator("#prompt").fill("the end of the end")
    page.locator("#send").click()
    expect(page.locator("#verdict")).to_contain_text("Identical")
    assert overflow(page) <= 0
    for button in page.get_by_role("button").all():
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44


def overflow(page: Page) -> int:
    root = "document.documentElement"
    return int(page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = rgba(colour).map((c) => c / 255)
      .map((c) => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (rgba(colour)[3]) return colour;
    }
  };
  const own = (element) => [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const all = [...document.querySelectorAll("body *")];
  return all.filter((e) => e.checkVisibility() && !e.disabled && own(e)).map((e) => {
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
    return [`${e.tagName}.${e.className}`, (a + 0.05) / (b + 0.05)];
  });
}"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 390)])
def test_contrast(chained: Served, page: Page, scheme: Any, width: int) -> None:
    """4.5 for every text (WCAG 2.2, 1.4.3), and a line of its own for every source, whatever its colour."""
    page.emulate_media(color_scheme=scheme)
    page.goto(chained.url)
    assert_readable(page)
    fill(page, most_tokens=60, temperature=0)
    page.set_viewport_size({"width": width, "height": 844})
    if width == 390:
        page.get_by_role("button", name="Settings").click()
    say(page)
    complete(page)
    answer(page).focus()
    page.keyboard.press("Home")
    assert assert_readable(page) > 100
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) > 380) == (scheme == "light")
    lines = page.locator("#legend .token").evaluate_all(
        "all => all.map(getComputedStyle).map((s) => s.textDecorationLine + ' ' + s.textDecorationStyle)"
    )
    assert len(lines) == len(set(lines)) == 6


def assert_readable(page: Page) -> int:
    """Returns how many texts there are."""
    found = page.evaluate(CONTRASTS)
    assert [(name, ratio) for name, ratio in found if ratio < 4.5] == []
    return len(found)


def test_names_for_screen_readers(chained: Served, page: Page) -> None:
    """Whatever takes the focus has a name, headings go down by one, and what changes is announced."""
    page.goto(chained.url)
    fill(page, most_tokens=60)
    say(page)
    complete(page)
    session = page.context.new_cdp_session(page)
    nodes = session.send("Accessibility.getFullAXTree")["nodes"]
    unnamed = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"]
        and any(p["name"] == "focusable" and p["value"]["value"] for p in node.get("properties", []))
        and not node.get("name", {}).get("value")
    ]
    assert unnamed == []
    levels = page.locator("h1, h2, h3, h4").evaluate_all("all => all.map((h) => Number(h.tagName[1]))")
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    for role in ("main", "complementary", "banner", "alert", "status"):
        expect(page.get_by_role(role)).to_have_count(1)
    assert page.locator("html").get_attribute("lang") == "en"
