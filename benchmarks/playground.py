"""The picture of the playground in the README, of a real answer: python -m benchmarks.playground"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from playwright.sync_api import Page, sync_playwright

from benchmarks.server import server
from tests.serving.browser import executable

PICTURE = Path("docs/pictures/playground.png")
MINUTE = 60_000.0
PROMPT = (
    "Write one short sentence about a fox and a dog. Then write one short sentence about a fox and a cat. "
    "Then write one short sentence about a fox and a cow."
)


def main(
    out: Annotated[Path, typer.Option(help="Where the picture goes.")] = PICTURE,
    prompt: Annotated[str, typer.Option(help="What is asked.")] = PROMPT,
    race: Annotated[bool, typer.Option(help="Of a race.")] = False,
) -> None:
    """Ask SmolLM2, with n-grams and its head as drafters, and take a picture of the page."""
    arguments = ["smollm2", "-d", "ngram", "-d", "head", "-k", "4"]
    with server(arguments) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), timeout=5 * MINUTE)
        page = browser.new_page(viewport={"width": 1120, "height": 940})
        page.set_default_timeout(5 * MINUTE)
        page.goto(url)
        ask(page, prompt, race=race)
        page.screenshot(path=out)
        browser.close()


def ask(page: Page, prompt: str, *, race: bool) -> None:
    """Until the answer is there, with the tooltip of one of its tokens."""
    page.get_by_label("Temperature").fill("0")
    page.get_by_label("Most tokens").fill("96")
    page.get_by_role("radio", name="Race" if race else "Chat").check()
    page.locator("#prompt").fill(prompt)
    page.locator("#send").click()
    page.locator("#verdict:not(:empty)" if race else "#status:has-text('complete')").wait_for()
    page.evaluate("scrollTo(0, 0)")
    if not race:
        page.locator(".answer [class*=from-draft]").nth(3).hover()


if __name__ == "__main__":
    typer.run(main)
