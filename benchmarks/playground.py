"""The playground in Chromium: its pictures in the documentation, and whether it is as fast as the server.

python -m benchmarks.playground           # docs/pictures/playground*.png, of real answers
python -m benchmarks.playground --rates   # tokens/s that the page shows, and of the same request over HTTP
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import httpx
import typer
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, sync_playwright

from benchmarks.server import server
from tests.serving.browser import executable

PICTURES = Path("docs/pictures")
SERVED = ("smollm2", "-d", "suffix", "-d", "head", "-k", "4", "-s", "suffix_memory=0")
MINUTE = 60_000.0
COLOURS = 160  # of a picture: its file stays small, and nobody sees it
TOLERANCE = 0.05  # of the server's rate, by which the page's may be lower
CODE = "Write a Python function that tells whether a number is prime. Answer with the code only."
LIST = "List three facts about foxes, as a Markdown list with the key word of each in bold."


def main(
    rates: Annotated[bool, typer.Option("--rates", help="Compare rates; take no pictures.")] = False,
    rounds: Annotated[int, typer.Option(help="Of the comparison.")] = 7,
    out: Annotated[Path, typer.Option(help="The folder of the pictures.")] = PICTURES,
) -> None:
    """Ask SmolLM2, with lookup and its head as drafters, through the page."""
    with server(SERVED) as (url, _), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), timeout=5 * MINUTE)
        if rates:
            compare(browser, url, rounds)
        else:
            take(browser, url, out)
        browser.close()


@contextmanager
def opened(browser: Browser, url: str, width: int, height: int, **options: Any) -> Iterator[Page]:
    with browser.new_context(viewport={"width": width, "height": height}, **options) as context:
        page = context.new_page()
        page.set_default_timeout(MINUTE)
        page.goto(url)
        yield page


def write(page: Page, **values: str) -> None:
    """Into fields of the settings, by their ids."""
    for name, value in values.items():
        page.locator(f"#{name.replace('_', '-')}").evaluate(
            "(field, value) => { field.value = value; }", value
        )


def ask(page: Page, prompt: str) -> None:
    """Until the answer is there."""
    page.locator("#prompt").fill(prompt)
    page.locator("#send").click()
    status = page.locator("#status")
    # Seldom looked at: looking at each frame, as Playwright's waiting does, takes time from the server.
    deadline = time.monotonic() + MINUTE / 1000
    while "complete" not in (status.text_content() or ""):
        if time.monotonic() > deadline:
            raise SystemExit("the answer did not come")
        time.sleep(0.5)


def take(browser: Browser, url: str, out: Path) -> None:
    """The pictures: an answer, a race in dark colours, a phone, a sequence in slow motion."""
    with opened(browser, url, 1120, 1180) as page:
        page.locator("#settings-button").click()
        write(page, temperature="0", max_tokens="80")
        ask(page, CODE)
        page.evaluate("scrollTo(0, 0)")
        page.locator(".answer [class*=from-draft]:visible", has_text=re.compile(r"\w")).nth(5).hover()
        keep(page.screenshot, out / "playground.png")
    with opened(browser, url, 1120, 960, color_scheme="dark") as page:
        page.locator("#settings-button").click()
        write(page, temperature="0", max_tokens="220")
        page.get_by_role("button", name="Code edit").click()
        page.locator("#verdict:not(:empty)").wait_for()
        page.mouse.move(0, 0)
        page.evaluate("scrollTo(0, 0)")
        keep(page.screenshot, out / "playground-dark.png")
    phone: dict[str, Any] = {"has_touch": True, "is_mobile": True, "device_scale_factor": 2}
    with opened(browser, url, 390, 844, **phone) as page:
        write(page, temperature="0", max_tokens="96")
        ask(page, LIST)
        keep(page.screenshot, out / "playground-phone.png")
    with opened(browser, url, 900, 900, device_scale_factor=2) as page:
        write(page, temperature="0", max_tokens="64")
        ask(page, CODE)
        panel = page.locator(".panel", has=page.locator(".passes")).last
        slow_motion(panel)
        keep(panel.screenshot, out / "playground-sequence.png")


def slow_motion(panel: Locator) -> None:
    """To where the checked draft of a pass is about to be struck out."""
    passes = panel.locator(".pass")
    good = passes.evaluate_all(
        """(all) => all.findIndex((one, i) => i > 2 && one.querySelectorAll(".guess").length > 3
        && one.querySelectorAll(".said").length > 2 && one.querySelector(".discarded"))"""
    )
    panel.get_by_role("slider").fill(str(good))
    panel.get_by_role("button", name="Next pass").click()
    passes.nth(good).evaluate(
        """(one) => one.getAnimations({ subtree: true }).forEach((animation) => {
        animation.pause();
        animation.currentTime = 140 * 4 + 350 + 120;
      })"""
    )


def keep(shoot: Callable[[], bytes], path: Path) -> None:
    """As a PNG of few colours."""
    picture = Image.open(BytesIO(shoot())).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    sys.stdout.write(f"{path}: {path.stat().st_size // 1024} KB\n")


def compare(browser: Browser, url: str, rounds: int) -> None:
    """Rates of one request, by the page and over HTTP, in random order in each round; exit status 1 if the
    page's is more than TOLERANCE lower, in the median of rounds."""
    ratios, shown, served = [], [], []
    with opened(browser, url, 1120, 960) as page:
        write(page, temperature="0", max_tokens="256", seed="1", extra='{"ignore_eos": true}')
        with page.expect_request("**/v1/chat/completions") as request:
            ask(page, CODE)  # unmeasured: it fills the caches
        body = json.loads(request.value.post_data or "")
        for _ in range(rounds):
            for through_page in random.sample((True, False), 2):
                if through_page:
                    shown.append(rate_of_page(page))
                else:
                    served.append(rate_over_http(url, body))
            ratios.append(shown[-1] / served[-1])
            sys.stdout.write(f"page {shown[-1]:.1f}, HTTP {served[-1]:.1f} tokens/s: {ratios[-1]:.3f}\n")
    sys.stdout.write(
        f"median: page {median(shown):.1f}, HTTP {median(served):.1f} tokens/s, ratio {median(ratios):.3f}\n"
    )
    if median(ratios) < 1 - TOLERANCE:
        sys.exit(1)


def rate_of_page(page: Page) -> float:
    """What it shows of an answer in a new conversation."""
    page.get_by_role("button", name="New conversation").click()  # which empties the status
    ask(page, CODE)
    return float(page.locator(".figures dd").first.inner_text())


def rate_over_http(url: str, body: dict[str, Any]) -> float:
    """Tokens a second as the page counts them: after the first chunk, until the last."""
    arrivals = []
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=5 * MINUTE / 1000) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                choice = json.loads(line.removeprefix("data: "))["choices"][0]
                count = len(choice.get("speculation_trace", {}).get("tokens", ()))
                if count:
                    arrivals.append((time.perf_counter(), count))
    (began, first), (ended, _) = arrivals[0], arrivals[-1]
    return (sum(count for _, count in arrivals) - first) / (ended - began)


if __name__ == "__main__":
    typer.run(main)
