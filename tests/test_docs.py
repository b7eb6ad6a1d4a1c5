"""Every block of code in the README and in the docs is run, and every command in their text is understood."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import outrider
from outrider import LLM
from tests.cluster.vllm import fakes
from tests.docs.configs import CONFIGS
from tests.docs.documents import NAMES, Block, blocks, code_in_prose
from tests.docs.shell import CHECKED, check_module, commands, run_curl, run_outrider, understand_outrider
from tests.docs.stand_ins import Models, stand_in
from tests.models.mtp_layers import write_with_mtp
from tests.serving.harness import Served, running

BLOCKS = [block for name in NAMES for block in blocks(name)]


ADDRESS = "http://127.0.0.1:8000"  # the documents' server; the tests' is at another port
CLIENTS = ("langchain_openai", "litellm")  # what recipes use and the tests do not ask for


def of_kind(kind: str) -> list[Block]:
    return [block for block in BLOCKS if block.kind == kind]


@pytest.fixture(scope="module")
def models(target: str, draft: str, head: str, tmp_path_factory: pytest.TempPathFactory) -> Models:
    with_mtp = write_with_mtp(tmp_path_factory.mktemp("with_mtp"), "qwen3.5")
    return Models(target, draft, head, str(with_mtp.path))


@pytest.fixture(scope="module")
def served(target: str) -> Iterator[Served]:
    """A server with the name that the documents give to theirs."""
    with running(LLM(target, device="cpu"), model_name="smollm2") as served:
        yield served


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_has_a_kind_that_is_tested(block: Block) -> None:
    """`text` is for formulas, drawings and output: what could be run is not hidden there."""
    kinds = ("python", "sh", "json", "text", *CONFIGS)
    assert block.kind in kinds, f"{block}: nothing tests blocks of {block.kind!r}"
    if block.kind == "text":
        for line in block.text.splitlines():
            first = line.split(maxsplit=1)[0] if line.strip() else ""
            assert first not in ("outrider", "import", "from", "curl", *CHECKED), f"{block}: {line}"


@pytest.mark.parametrize(
    "document", [name for name in NAMES if any(b.kind == "python" for b in blocks(name))]
)
def test_python(
    document: str, models: Models, served: Served, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A document's blocks are one program: later ones use what earlier ones made. Where a client's library is
    not installed, the rest is run, and the test counts as skipped."""
    brief = stand_in(models)
    monkeypatch.setattr(outrider, "LLM", brief)
    namespace: dict[str, Any] = {"LLM": brief, "SamplingParams": outrider.SamplingParams}
    missing = []
    if any('engine="vllm"' in block.text for block in blocks(document)):
        fakes.install(monkeypatch)
    for block in blocks(document):
        if block.kind == "python":
            text = block.text.replace(ADDRESS, served.url)
            try:
                # Lines are numbered as in the document, for a traceback that can be followed.
                exec(compile("\n" * (block.line - 1) + text, document, "exec"), namespace)
            except ModuleNotFoundError as error:
                if error.name not in CLIENTS:
                    raise
                missing.append(error.name)
    namespace.clear()
    gc.collect()  # models of hundreds of megabytes
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.mark.parametrize("block", of_kind("sh"), ids=str)
def test_shell(
    block: Block, models: Models, served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for words in commands(block.text):
        if words[0] == "outrider":
            run_outrider(words, models, tmp_path)
        elif words[0] == "curl":
            run_curl(words, served.url)
        else:
            assert words[0] in CHECKED, f"{block}: nothing here knows `{words[0]}`"
            CHECKED[words[0]](words)


@pytest.mark.parametrize("block", of_kind("json"), ids=str)
def test_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", [block for kind in CONFIGS for block in of_kind(kind)], ids=str)
def test_configurations(block: Block) -> None:
    CONFIGS[block.kind](block.text)


@pytest.mark.parametrize("document", NAMES)
def test_commands_in_the_text(document: str) -> None:
    """Such as those that a table was made with. A command of two words is only named."""
    for code in code_in_prose(document):
        for words in commands(code) if code.startswith(("outrider ", "python -m benchmarks")) else ():
            if words[0] == "python":
                check_module(words)
            elif "..." not in words:
                understand_outrider(words if len(words) > 2 else [*words, "--help"])


def test_prose_has_commands() -> None:
    """The test above looks at something."""
    assert sum(code.startswith("outrider ") for code in code_in_prose("README.md")) > 2
