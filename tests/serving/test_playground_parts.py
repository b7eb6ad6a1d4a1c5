"""What an answer is made of: formatted text, reasoning, calls of tools. Streams are faked."""

from __future__ import annotations

from playwright.sync_api import Locator, Page, expect

from tests.serving.browser import answer, complete, fake, needs_chromium, say, spelt
from tests.serving.harness import Served

pytestmark = needs_chromium

MARKDOWN = """# Foxes *and* dogs

Foxes are **quick** and ~~lazy~~ `red`, see [there](https://example.org/a_(b)) or [here](javascript:alert(1)).
<script>document.title = "mine"</script> <img src=x onerror="document.title = 'mine'">

- one
- two
  1. inner

> said *somebody*

| name | age |
|------|-----|
| Rex  | `3` |

```python
def bark(): return "**woof**"
```
"""
FORMS = (
    "div.heading.h1",
    "em",
    "strong",
    "del",
    "p code",
    "li",
    "ol li",
    "blockquote p em",
    "th",
    "td code",
    "pre code",
)
SEEDED = """async (seed) => {
  const { Prose } = await import("/playground/prose.js");
  const bits = ["#", " ", "*", "**", "`", "```", "~~~", "\\n", "\\n\\n", "- ", "1. ", "> ", "|", "|---|",
    "a", "b c", "  ", "[x](http://y)", "\\\\", "~~", "    ", "_", "!", "\\t", "<b>", "http://z/",
    "\\u0000", "\\u{1f600}"];
  const random = () => (seed = (seed * 1103515245 + 12345) % 2 ** 31) / 2 ** 31;
  for (let i = 0; i < 120; i += 1) {
    const part = { text: "", pieces: [], changes: 0 };
    const grown = new Prose(part);
    for (let left = random() * 40; left > 0; left -= 1) {
      const text = bits[Math.floor(random() * bits.length)];
      part.pieces.push({ from: part.text.length, text, token: null });
      part.text += text;
      part.changes += 1;
      grown.draw();
    }
    const whole = new Prose(part);
    whole.draw();
    if (grown.element.textContent !== part.text) return ["not its text", part.text];
    if (grown.element.innerHTML !== whole.element.innerHTML) return ["not as drawn at once", part.text];
  }
  return [];
}"""


def test_markdown(chained: Served, page: Page) -> None:
    """Formatted, without a character or a token lost, and nothing of it becomes the page's own."""
    texts = [MARKDOWN[i : i + 3] for i in range(0, len(MARKDOWN), 3)]
    fake(page, *({"delta": {"content": text}, "speculation_trace": spelt(text)} for text in texts))
    page.goto(chained.url)
    say(page)
    complete(page)
    box = answer(page)
    assert box.text_content() == MARKDOWN
    positions = box.locator(".token").evaluate_all("all => all.map((one) => Number(one.dataset.position))")
    assert sorted(set(positions)) == list(range(len(texts)))
    for form in FORMS:
        expect(box.locator(form).first).to_be_visible()
    expect(box.locator("strong")).to_have_text("**quick**")
    assert box.locator("strong").inner_text() == "quick"
    assert [box.locator("a").nth(i).get_attribute("href") for i in range(box.locator("a").count())] == [
        "https://example.org/a_(b)"
    ]
    assert box.locator("script, img, iframe").count() == 0
    expect(page).to_have_title("Outrider playground")

    marks = box.locator(".mark")
    assert not any(mark.is_visible() for mark in marks.all())
    page.get_by_role("button", name="Show Markdown").click()
    expect(marks.first).to_be_visible()
    assert box.locator("strong").inner_text() == "**quick**"


def test_text_that_grows(chained: Served, page: Page) -> None:
    """Drawn piece by piece it is what it is when drawn at once, and keeps every character."""
    page.goto(chained.url)
    for seed in range(5):
        assert page.evaluate(SEEDED, seed) == []


def test_reasoning_and_calls(chained: Served, page: Page) -> None:
    """Each has its place and its tokens, though tags are tokens without a text; the call is sent back."""
    function = {"name": "weather", "arguments": ""}
    first = {"index": 0, "id": "call_1", "type": "function", "function": function}
    bodies = fake(
        page,
        {"delta": {"role": "assistant", "content": ""}},
        {"delta": {"reasoning_content": "Let me "}, "speculation_trace": spelt("<think>", "Let", " me ")},
        {"delta": {"reasoning_content": "see"}},
        {"delta": {"content": "I look."}, "speculation_trace": spelt("see", "</think>", "I look", ".")},
        {"delta": {}, "speculation_trace": spelt("<tool_call>", '{"city"')},
        {"delta": {"tool_calls": [first]}},
        {"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"city": "Bonn"}'}}]},
         "speculation_trace": spelt(': "', 'Bonn"}', "</tool_call>"), "finish_reason": "tool_calls"},
    )  # fmt: skip
    page.goto(chained.url)
    say(page)
    complete(page)
    reasoning = answer(page).locator("details.reasoning")
    expect(reasoning.get_by_text("Let me see")).to_be_hidden()
    reasoning.get_by_text("Reasoning").click()
    assert tokens(reasoning) == ["Let", " me ", "see"]
    text = answer(page).locator(":scope > .prose")
    assert text.inner_text() == "I look."
    assert tokens(text) == ["I look", "."]
    call = answer(page).get_by_role("region", name="Tool call")
    expect(call).to_contain_text("Calls the tool weather")
    assert call.locator("pre").inner_text() == '{"city": "Bonn"}'
    assert tokens(call) == ['{"city"', ': "', 'Bonn"}']
    expect(page.locator(".figures .headline")).to_contain_text("12 tokens")

    say(page, "And?")
    expect(answer(page, 2)).to_be_visible()
    complete(page)
    call_again = {
        "id": "call_1",
        "type": "function",
        "function": function | {"arguments": '{"city": "Bonn"}'},
    }
    assert bodies[1]["messages"][1] == {"role": "assistant", "content": "I look.", "tool_calls": [call_again]}


def test_a_stream_without_a_trace(chained: Served, page: Page) -> None:
    """It is shown all the same."""
    fake(page, {"delta": {"content": "plain **text**"}})
    page.goto(chained.url)
    say(page)
    complete(page)
    assert answer(page).inner_text() == "plain text"
    assert tokens(answer(page)) == []


def tokens(box: Locator) -> list[str]:
    return box.locator(".token").all_text_contents()
