"""The six scripts that are written for vLLM run with nothing changed but what they import."""

from __future__ import annotations

import ast
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "vllm"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")
VLLM = {
    "LLM", "AsyncLLM", "AsyncEngineArgs", "BeamSearchParams", "Counter", "EngineArgs",
    "FlexibleArgumentParser", "LLMEngine", "RequestOutputKind", "SamplingParams", "StructuredOutputsParams",
    "TokensPrompt", "Vector", "cleanup_dist_env_and_memory",
}  # fmt: skip
"""What the scripts import, by the names that vLLM has for it."""


def run(script: str, model: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What a script prints, line by line."""
    main: Any = import_module(f"examples.vllm.{script}").main
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of what has no effect
        main(["--model", model, "--max_tokens", "8"] if script == "chat" else model)
    return capsys.readouterr().out.splitlines()


def test_there_are_six() -> None:
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize("script", SCRIPTS)
def test_only_what_is_imported_is_ours(script: str) -> None:
    text = (FOLDER / f"{script}.py").read_text()
    lines = [line for line in text.splitlines() if "outrider" in line.lower()]
    assert all(line.startswith("from outrider") for line in lines)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("outrider"):
            assert {name.name for name in node.names} <= VLLM


def test_basic(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = run("basic", target, capsys)
    assert "'The capital of France is' goes on " in "\n".join(lines)
    assert lines[-1].endswith("ended by length")


def test_chat(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = "\n".join(run("chat", target, capsys))
    assert r"<|im_start|>user\nName three rivers in Europe.<|im_end|>\n<|im_start|>assistant\n'" in said


def test_structured_outputs(capsys: pytest.CaptureFixture[str]) -> None:
    """With a model that ends its JSON."""
    lines = run("structured_outputs", "smollm2", capsys)
    assert lines[-1].startswith("kind=<Kind.")
    assert any(line.endswith(("friendly", "rude")) for line in lines)
    assert any("SELECT " in line and " FROM " in line for line in lines)


def test_spec_decode(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = run("spec_decode", target, capsys)
    (drafts,) = [float(line.removeprefix("drafts: ")) for line in said if line.startswith("drafts: ")]
    assert drafts > 0
    assert sum(line.startswith("acceptance at token") for line in said) == 3


def test_prefix_caching(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = run("prefix_caching", target, capsys)
    assert "answers are the same: True" in said
    assert "reset: True" in said
    assert "then from the cache: 0" in said
    assert not any("from the cache: [0" in line for line in said)


def test_engines(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = run("engines", target, capsys)
    assert {line[:3] for line in said} >= {"0 [", "1 ["}
    assert sum(" goes on " in line for line in said) == 2
    assert sum("The capital of France is" in line for line in said) == 3
