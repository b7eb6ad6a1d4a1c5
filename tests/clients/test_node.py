"""Clients for Node: OpenAI's own, and the AI SDK."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import MODEL, Both

FOLDER = Path(__file__).with_name("node")
CITIES = ("Paris", "London", "Taipei")

pytestmark = [
    pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed"),
    pytest.mark.skipif(
        not (FOLDER / "node_modules").is_dir(), reason="the clients for Node are not installed: make clients"
    ),
]


def run(both: Both, script: str) -> Any:
    """What a script prints, which has to be the same of either server."""

    def ask(url: str) -> Any:
        words = ["node", script, url, MODEL]
        done = subprocess.run(words, cwd=FOLDER, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return both.same(ask)


def test_openai(both: Both) -> None:
    told = run(both, "openai.mjs")
    assert told["streamed"] == told["text"] != ""
    assert told["streamedResponse"] == told["response"] == told["text"]
    assert len(told["called"]) == 2
    assert told["called"][0] == told["called"][1] in CITIES


def test_ai_sdk(both: Both) -> None:
    told = run(both, "ai.mjs")
    assert told["streamed"] == told["text"] != ""
    whole, streamed = told["called"]  # as many calls as the model likes
    assert whole == streamed
    assert whole
    assert set(whole) <= set(CITIES)
    assert told["object"]["city"] in CITIES
    assert told["object"]["days"] in (1, 2, 3)
