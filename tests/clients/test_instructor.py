"""instructor: objects by way of tools, of JSON and of a schema."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI

from tests.clients.conftest import MODEL, Both
from tests.clients.questions import ASK_WEATHER, LIMIT_OF_JSON, Weather

instructor = pytest.importorskip("instructor", reason="instructor is not installed: make clients")


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "JSON_SCHEMA"])
def test_an_object(both: Both, mode: str) -> None:
    def ask(url: str) -> Any:
        client = instructor.from_openai(
            OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0), mode=getattr(instructor.Mode, mode)
        )
        return client.chat.completions.create(
            model=MODEL, messages=ASK_WEATHER, response_model=Weather, temperature=0,
            max_tokens=LIMIT_OF_JSON, max_retries=0,
        ).model_dump()  # fmt: skip

    Weather.model_validate(both.same(ask))
