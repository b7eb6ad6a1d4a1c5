"""What a chat template is given besides messages: tools and further variables."""

from __future__ import annotations

from typing import Any

import pytest

from outrider.errors import RequestError
from outrider.models.chat_template import ChatTemplate

HI = [{"role": "user", "content": "hi"}]
TOOL = {"type": "function", "function": {"name": "f", "description": "é", "parameters": {"type": "object"}}}


def render(source: str, **given: Any) -> str:
    return ChatTemplate(source, {"eos_token": "<e>"}).render(HI, add_generation_prompt=True, **given)


def test_the_names_that_a_template_reads() -> None:
    source = (
        "{% set x = 1 %}{% for m in messages %}{{ m }}{{ x }}{% endfor %}{% if enable_thinking %}{% endif %}"
    )
    template = ChatTemplate(source + "{{ tools is defined }}", {})
    assert template.variables == {"messages", "enable_thinking", "tools"}
    assert ChatTemplate("{% for", {}).variables == frozenset()


def test_tools_and_variables() -> None:
    text = render("{{ tools[0].function | tojson }} {{ depth[1].a }} {{ eos_token }}", tools=[TOOL],
                  variables={"depth": (1, {"a": "ü"})})  # fmt: skip
    assert text == '{"name": "f", "description": "é", "parameters": {"type": "object"}} ü <e>'
    assert render("{{ eos_token }}", variables={"eos_token": "x", "other": 1}) == "x"
    assert render("{{ tools is none }}") == "True"


def test_large_tools_are_no_runaway_template(monkeypatch: pytest.MonkeyPatch) -> None:
    large = {"type": "function", "function": {"name": "f", "description": "x" * 3_000_000}}
    assert len(render("{{ tools | tojson }}", tools=[large])) > 3_000_000


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"tools": "f"}, "tools is a str; give a list of tools"),
        ({"tools": [object()]}, "tools[0] is a object; give what JSON can hold"),
        ({"variables": [1]}, "chat_template_kwargs is a list; give variables by name"),
        ({"variables": {"tools": []}}, "chat_template_kwargs has 'tools', which has an argument of its own"),
        ({"variables": {"x": {1}}}, "chat_template_kwargs.x is a set; give what JSON can hold"),
    ],
)
def test_what_cannot_be_given(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        render("{{ tools }}", **given)
    assert reason in str(refused.value)
