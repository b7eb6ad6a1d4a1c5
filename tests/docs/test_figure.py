"""The figure of the method can be read on a light and on a dark page, and needs nothing from elsewhere."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from tests.docs.documents import ROOT

FIGURE = (ROOT / "docs" / "pictures" / "method.svg").read_text(encoding="utf-8")
LEGIBLE = 4.5  # WCAG 2, AA


def colours(rule: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", rule))


def luminance(colour: str) -> float:
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_text_stands_out_in_both_schemes() -> None:
    light, _, dark = FIGURE.partition("prefers-color-scheme: dark")
    schemes = [colours(light), colours(dark)]
    assert schemes[0].keys() == schemes[1].keys()
    for scheme in schemes:
        for ground in ("panel", "pass", "token", "draft", "accepted", "fixed"):
            assert contrast(scheme["ink"], scheme[ground]) >= LEGIBLE, ground
        for mark in ("good", "bad"):
            assert contrast(scheme[mark], scheme["panel"]) >= LEGIBLE, mark


def test_it_stands_alone_and_says_in_words_what_it_shows() -> None:
    root = ElementTree.fromstring(FIGURE)
    named = {element.get("id"): element.text for element in root.iter() if element.get("id")}
    assert all(named[name] for name in str(root.get("aria-labelledby")).split())
    assert "://" not in FIGURE.replace("http://www.w3.org/2000/svg", "")
