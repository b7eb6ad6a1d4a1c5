"""The playground in Chromium: what it shows is what the engine says."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from outrider import LLM, SamplingParams
from tests.engine.helpers import load
from tests.serving.browser import Wire, answer, complete, fake, fill, needs_chromium, never_end, say
from tests.serving.harness import Gate, Served, running
from tests.serving.test_traces import CHAT, joined, traces

PROMPT = CHAT["messages"][0]["content"]
KEY = "open-sesame"

pytestmark = needs_chromium


def of_offline(offline: LLM, messages: Any, **params: Any) -> str:
    prompt = offline.chat_prompt(messages)
    return offline.generate(prompt, SamplingParams(**params), use_tqdm=False)[0].outputs[0].text


def test_chat(chained: Served, offline: LLM, page: Page) -> None:
    """Two turns, each the text of the offline engine; tokens and drafts as the stream tells them."""
    page.goto(chained.url)
    expect(page.locator("#model")).to_contain_text("tiny, up to 1024 tokens")
    fill(page, temperature=0.8, most_tokens=60, seed=5)
    say(page)
    complete(page)
    first = of_offline(offline, CHAT["messages"], seed=5, temperature=0.8, max_tokens=60)
    assert answer(page).text_content() == first

    choices = traces(chained, **CHAT, temperature=0.8, max_tokens=60, num_speculative_tokens=3)
    tokens, drafts = joined(choices, "tokens"), joined(choices, "drafts")
    shown = pieces(answer(page))
    said = {position: token for position, token in enumerate(tokens) if token["text"]}
    assert {position: text for position, (text, _) in shown.items()} == {
        position: token["text"] for position, token in said.items()
    }
    names = dict.fromkeys(draft["drafter"] for draft in drafts)
    assert len(names) == 2
    by_position = {p: d for d in drafts for p in range(d["position"], d["position"] + d["accepted"])}
    for position, token in said.items():
        look = shown[position][1]
        if token["source"] == "draft":
            assert look == f"token from-draft-{list(names).index(by_position[position]['drafter'])}"
        else:
            assert look == f"token from-{token['source']}"

    legend = page.get_by_role("region", name="Where tokens come from")
    for name in names:
        expect(legend).to_contain_text(f"accepted draft of {name}")
    steps = page.get_by_role("list", name="Drafts, step by step").get_by_role("listitem")
    told = [re.match(r"Step \d+, (.*): (\d+) of (\d+)", text) for text in steps.all_text_contents()]
    assert [match.groups() for match in told if match] == [
        (draft["drafter"], str(draft["accepted"]), str(len(draft["tokens"]))) for draft in drafts
    ]
    discarded = steps.locator(".discarded").count()
    assert discarded == sum(len(draft["tokens"]) - draft["accepted"] for draft in drafts)
    drafted, stood = (sum(map(f, drafts)) for f in (lambda d: len(d["tokens"]), lambda d: d["accepted"]))
    figures = page.locator(".figures")
    assert f"{round(100 * stood / drafted)} %" in figures.inner_text()
    passes = sum(token["source"] != "draft" for token in tokens) + (tokens[-1]["source"] == "draft")
    assert steps.count() == passes
    expect(figures.locator(".headline")).to_have_text(
        f"{60 - passes} passes saved: 60 tokens in {passes} passes"
    )

    say(page, "on")
    expect(answer(page, 2)).not_to_be_empty()
    complete(page)
    messages = [*CHAT["messages"], {"role": "assistant", "content": first}, {"role": "user", "content": "on"}]
    assert answer(page, 2).text_content() == of_offline(
        offline, messages, seed=5, temperature=0.8, max_tokens=60
    )


def pieces(box: Locator) -> dict[int, tuple[str, str]]:
    """Text and look of each token by its position: formatted text may show it in several pieces."""
    found: dict[int, tuple[str, str]] = {}
    for position, text, look in box.locator(".token").evaluate_all(
        "all => all.map((one) => [Number(one.dataset.position), one.textContent, one.className])"
    ):
        before, _ = found.get(position, ("", look))
        found[position] = (before + text, look)
    return found


def test_a_tokens_tooltip(chained: Served, page: Page) -> None:
    """By pointer and by keyboard, where it is spoken too; and the table says the same."""
    page.goto(chained.url)
    fill(page, temperature=0.8, most_tokens=60, seed=5)
    say(page)
    complete(page)
    tip = page.get_by_role("tooltip")
    for source in ("draft", "correction"):
        shown = answer(page).locator(f"[class*=from-{source}]", has_text=re.compile("[!-~]")).first
        shown.hover()
        expect(tip).to_contain_text(re.compile(r"target's probability [01]\.\d{3}"))
    expect(tip).to_contain_text("the draft said")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    page.keyboard.press("Escape")

    answer(page).focus()
    spoken = page.locator("#spoken")
    for key, number in (("ArrowRight", 1), ("ArrowRight", 2), ("End", 60), ("ArrowLeft", 59), ("Home", 1)):
        page.keyboard.press(key)
        expect(tip).to_contain_text(f"token {number}:")
        expect(spoken).to_contain_text(f"token {number}:")
    said = (spoken.text_content() or "").split(", ")
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()

    page.get_by_text("Tokens as a table").click()
    rows = page.get_by_role("region", name="Tokens as a table").get_by_role("row")
    expect(rows).to_have_count(61)
    assert rows.nth(1).get_by_role("cell").nth(2).text_content() == said[1].partition(":")[0]


@pytest.mark.parametrize("seed", ["", "5"])
def test_race(chained: Served, page: Page, offline: LLM, seed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unseeded, one seed is drawn for both, and told."""
    step = chained.llm.engine.step

    def slowly() -> Any:
        time.sleep(0.005)  # else a busy browser gets all chunks at once, and has no time to tell
        return step()

    monkeypatch.setattr(chained.llm.engine, "step", slowly)
    page.goto(chained.url)
    fill(page, most_tokens=60, temperature=1, seed=seed)
    never_end(page)
    page.get_by_role("radio", name="Race").check()
    page.get_by_role("textbox", name="Prompt of both").fill(PROMPT)
    page.get_by_role("button", name="Race").click()
    verdict = page.locator("#verdict")
    expect(verdict).to_contain_text(
        re.compile(r"^Identical: all 60 tokens are the same\. \d+ passes saved\.")
    )
    expect(page.locator("#ratio")).to_have_text(re.compile("^\\d+\\.\\d\\d\N{MULTIPLICATION SIGN}$"))
    drawn = re.search(r"Both with seed (\d+)", verdict.text_content() or "")
    assert drawn is not None
    assert seed in ("", drawn[1])
    expected = of_offline(
        offline, CHAT["messages"], seed=int(drawn[1]), temperature=1.0, max_tokens=60, ignore_eos=True
    )
    lanes = [
        page.get_by_role("region", name=name, exact=True)
        for name in ("With speculation", "Without speculation")
    ]
    for lane in lanes:
        assert lane.locator(".answer").text_content() == expected
        expect(lane.locator(".state")).to_have_text(re.compile(r"^\d+\.\d tokens/s$"))
    assert lanes[0].locator(".answer .from-target").count() < lanes[1].locator(".answer .from-target").count()
    assert lanes[1].locator(".answer .token:not(.from-target)").count() == 0

    page.get_by_role("button", name="Replay both at once").click()
    expect(page.get_by_role("status")).to_have_text("The replay is over.")
    assert [lane.locator(".answer").text_content() for lane in lanes] == [expected, expected]


def test_a_race_copies_nothing_from_the_last_one(chained: Served, page: Page) -> None:
    """Both of its requests have a salt that no other race has."""
    bodies = fake(page, {"delta": {"content": "the end"}, "finish_reason": "stop"})
    page.goto(chained.url)
    page.get_by_role("radio", name="Race").check()
    for number in (2, 4):
        page.get_by_role("textbox", name="Prompt of both").fill(PROMPT)
        page.get_by_role("button", name="Race").click()
        while len(bodies) < number:
            page.wait_for_timeout(10)
        expect(page.locator("#verdict")).not_to_be_empty()
    first, second, *others = [body["cache_salt"] for body in bodies]
    assert first == second
    assert others == [others[0], others[0]]
    assert first not in ("", others[0])


def test_a_race_needs_drafts(target: str, page: Page) -> None:
    with running(load(target)) as served:
        page.goto(served.url)
        page.get_by_role("radio", name="Race").check()
        page.get_by_label("Draft length").select_option("off")
        page.get_by_role("textbox", name="Prompt of both").fill(PROMPT)
        page.get_by_role("button", name="Race").click()
        expect(page.get_by_role("alert")).to_contain_text("choose another draft length than off")
        expect(page.get_by_label("Draft length")).to_be_focused()
        page.get_by_label("Draft length").select_option("auto")
        page.get_by_role("button", name="Race").click()
        expect(page.locator("#verdict")).to_contain_text("Nothing was drafted")


@pytest.mark.parametrize("mode", ["Chat", "Race"])
def test_a_dropped_connection(target: str, page: Page, mode: str) -> None:
    """In the middle of an answer: what came is kept and counted. And again, where nobody listens any more."""
    with running(load(target, "ngram", num_speculative_tokens=3)) as served:
        gate = Gate(served)
        wire = Wire(int(served.url.rpartition(":")[2]))
        page.goto(wire.url)
        never_end(page)
        page.get_by_role("radio", name=mode).check()
        page.locator("#prompt").fill(PROMPT)
        gate.shut(after=24)
        page.locator("#send").click()
        shown = page.locator(".answer").first
        expect(shown.locator(".token").nth(4)).to_be_attached()
        wire.cut()
        expect(page.get_by_role("alert")).to_have_text("The connection to the server was lost.")
        told = re.fullmatch(
            r"Broke off after (\d+) tokens, which are kept\.", page.locator(".note").first.inner_text()
        )
        assert told is not None
        assert int(told[1]) >= max(pieces(shown)) >= 5
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        gate.open()
        served.until_idle()
        page.locator("#prompt").fill("again")
        page.locator("#send").click()
        dead = page.get_by_text("The server does not answer. Is it still running?")
        expect(dead).to_have_count(1)
        expect(page.locator("#prompt")).to_have_value("again")
        assert page.locator(".answer").count() == (1 if mode == "Chat" else 2)


def test_what_the_server_refuses(chained: Served, page: Page) -> None:
    page.goto(chained.url)
    alert = page.get_by_role("alert")
    for extra, reason in (
        ('{"best_off": 2}', "Best_off is not supported; leave it out"),
        ('{"top_p": 7}', "Top_p = 7"),
        ("{", "The other fields are not JSON"),
        ("[1]", "have to be a JSON object"),
        ('{"n": 2}', "The page sets n itself; leave it out."),
    ):
        page.locator("#extra").fill(extra)
        say(page)
        expect(alert).to_contain_text(reason)
        expect(page.get_by_role("textbox", name="Message", exact=True)).to_have_value(PROMPT)
    page.locator("#extra").fill('{"stop": ["e"], "top_k": 20}')
    say(page)
    complete(page)
    expect(alert).to_be_empty()
    page.get_by_role("button", name="New conversation").click()
    expect(page.locator(".answer")).to_have_count(0)


def test_a_server_that_asks_for_a_key(target: str, page: Page) -> None:
    """The page itself is open, nothing else is."""
    with running(load(target), api_keys=(KEY,)) as served:
        page.goto(served.url)
        key = page.get_by_label("API key")
        expect(key).to_be_focused()
        alert = page.get_by_role("alert")
        expect(alert).to_have_text("The server asks for an API key.")
        say(page)
        expect(alert).to_have_text("The server asks for an API key.")
        key.fill("guessed")
        key.press("Tab")
        expect(alert).to_have_text("This key is wrong.")
        page.locator("#send").click()
        expect(alert).to_have_text("This key is wrong.")
        expect(page.locator(".answer")).to_have_count(0)
        key.fill(KEY)
        key.press("Tab")
        expect(alert).to_be_empty()
        expect(key).to_be_hidden()
        fill(page, most_tokens=8)
        page.locator("#send").click()
        complete(page)
        expect(page.locator("#model")).to_contain_text("tiny")
        assert served.http.get("/playground/main.js").status_code == 200
        assert served.http.get("/playground/../metrics").status_code == 401
        assert served.http.get("/v1/models").status_code == 401


def test_its_files(chained: Served) -> None:
    """Nothing runs that is not a file of the server, and no other file can be had."""
    index = chained.http.get("/")
    policy = index.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", index.text)
    for name in ("page.css", "tokens.css", "main.js", "icon.svg"):
        file = chained.http.get(f"/playground/{name}")
        assert (file.status_code, file.headers["X-Content-Type-Options"]) == (200, "nosniff")
    for name in ("..%2fpages.py", "../pages.py", "pages.py", "", "%2e%2e/app.py"):
        assert chained.http.get(f"/playground/{name}").status_code == 404
