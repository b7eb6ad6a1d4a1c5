"""Shell commands of the documents: each is understood word by word, and run where that is cheap."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shlex
import tomllib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import typer
from typer.testing import CliRunner

from outrider.cli.app import app
from outrider.cluster.vllm.speculation import HEAD, METHODS
from outrider.serving.server import END_SECONDS
from outrider.serving.settings import ServerConfig
from tests.docs.documents import ROOT
from tests.docs.stand_ins import FEW, Models

Words = list[str]
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]

# What makes a command cheap. Of tune, only its files' names: its own small options are given with them.
BRIEFLY: dict[str, Words] = {
    "generate": ["--max-tokens", str(FEW)],
    "chat": ["--max-tokens", str(FEW)],
    "run": ["--max-tokens", str(FEW)],
    "verify": ["-k", "2", "-b", "1", "--temperature", "0.7", "--max-tokens", str(FEW)],
    "bench": ["--rounds", "1", "--max-tokens", str(FEW)],
    "tune": ["--rounds", "1", "--max-tokens", str(FEW), "--max-length", "2"],
    "plan": ["--no-bandwidth"],
    "models": [],
    "drafts": [],
    "export-head": [],
}
IMAGE = "outrider"  # what the documents call the image that the Dockerfile makes
ONLY_READ = ("serve", "distill")  # the first ends only when it is stopped, the second takes an hour
PROMPTS = '{"category": "qa", "turns": ["the end", "on"]}\n{"category": "math", "turns": ["in"]}\n'


def commands(text: str) -> list[Words]:
    """The commands of a block, without comments and without variables that are set for one."""
    lines = text.replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [[*_without_variables(words)] for words in split if words]


def _without_variables(words: Words) -> Words:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    return words


def understand_outrider(words: Words) -> None:
    """Raises what the command line raises for options that it does not have."""
    _, name, *arguments = words
    assert name in COMMANDS, f"there is no `outrider {name}`"
    if "--help" not in arguments:
        COMMANDS[name].make_context(name, list(arguments))


def run_outrider(words: Words, models: Models, folder: Path) -> None:
    """In `folder`, with tiny models where the document names none in particular."""
    understand_outrider(words)
    _, name, *arguments = words
    if name in ONLY_READ or ("--engine", "vllm") in pairwise(words):
        return
    (folder / "prompts.jsonl").write_text(PROMPTS)
    target = next((b for a, b in pairwise(words) if a in ("--model", "-m")), "smollm2")
    arguments = [models.of(word, target) for word in arguments]
    result = CliRunner().invoke(app, [name, *arguments, *BRIEFLY[name]], input="/exit\n")
    # Of a plan, 1 says that nothing fits beside what the tests' process holds.
    assert result.exit_code in ((0, 1) if name == "plan" else (0,)), (result.output, result.exception)


def check_make(words: Words) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in words[1:]:
        assert re.search(rf"^{re.escape(target)}:", makefile, re.MULTILINE), f"no `make {target}`"


def check_pip(words: Words) -> None:
    """This package with extras that it has, or a package that one of its extras names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert words[1] == "install"
    for word in words[2:]:
        if match := re.fullmatch(r"\.(?:\[([a-z,]+)\])?", word):
            assert set(filter(None, (match[1] or "").split(","))) <= extras.keys(), word
        elif not word.startswith("--"):
            named = [re.split(r"[<>=\[]", each)[0] for group in extras.values() for each in group]
            assert word in named, f"{word!r} is in none of the extras"


def check_module(words: Words) -> None:
    """`python -m module --option ...`: the module is there and has the options."""
    assert words[1] == "-m"
    spec = importlib.util.find_spec(words[2])
    assert spec is not None, f"there is no module {words[2]}"
    assert spec.origin is not None
    where = Path(spec.origin)
    files = where.parent.rglob("*.py") if where.name == "__init__.py" else [where]
    source = "".join(file.read_text() for file in files)
    for word in words[3:]:
        if word.startswith("--"):
            assert f'"{word}"' in source or f" {word[2:].replace('-', '_')}:" in source, word


def check_vllm(words: Words) -> None:
    """vLLM is not there: of its server's options, only the drafter is looked at."""
    assert words[1] == "serve"
    config = json.loads(words[words.index("--speculative-config") + 1])
    assert config["method"] in (HEAD, *METHODS.values())


def run_curl(words: Words, url: str) -> None:
    """Against the server at `url`, whatever address the document gives."""
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d")
    given = parser.parse_args(words[1:])
    headers = dict(re.split(r":\s*", header, maxsplit=1) for header in given.H)
    method = "GET" if given.d is None else "POST"
    path = urlsplit(given.url).path
    answer = httpx.request(method, url + path, headers=headers, content=given.d, timeout=120)
    assert answer.status_code == 200, answer.text


def check_source(words: Words) -> None:
    """What a shell reads is the environment that the Makefile builds."""
    folder = re.search("^VENV := (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert folder is not None
    assert words[1:] == [f"{folder[1]}/bin/activate"]


def check_docker(words: Words) -> None:
    """This repository's image with what the server understands, or another that is told its address."""
    if words[1] == "build":
        *options, context = words[2:]
        built = dict(zip(options[::2], options[1::2], strict=True))
        assert built.keys() <= {"--tag", "--target"}
        assert built["--tag"].split("/")[-1].startswith(IMAGE)
        assert context == "."
        assert f" AS {built.get('--target', 'cpu')}\n" in (ROOT / "Dockerfile").read_text()
        return
    if words[1] in ("compose", "push"):
        _check_files(words)
        return
    parser = argparse.ArgumentParser()
    for option in ("--publish", "--stop-timeout", "--volume", "--add-host"):
        parser.add_argument(option)
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--rm", action="store_true")
    parser.add_argument("image")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    assert words[1] == "run"
    given = parser.parse_args(words[2:])
    if given.image == IMAGE:
        assert given.publish.endswith(":8000")
        assert int(given.stop_timeout) > ServerConfig.model_fields["shutdown_timeout"].default + END_SECONDS
        understand_outrider(["outrider", "serve", *given.arguments])
    else:
        addresses = [value for value in given.env if "://" in value]
        assert addresses
        assert all(address.endswith(":8000/v1") for address in addresses)


def _check_files(words: Words) -> None:
    """What lies in deploy/ or docs/ by a command's words is there."""
    for word in words:
        path = word.split("=")[-1]
        if path.startswith(("deploy/", "docs/")):
            assert (ROOT / path).exists(), path


def check_cluster(words: Words) -> None:
    """helm, kubectl and gcloud are not there: of their commands, only files are looked at."""
    assert len(words) > 2
    _check_files(words)


CHECKED: dict[str, Callable[[Words], None]] = {
    "docker": check_docker,
    "gcloud": check_cluster,
    "helm": check_cluster,
    "kubectl": check_cluster,
    "make": check_make,
    "pip": check_pip,
    "python": check_module,
    "source": check_source,
    "vllm": check_vllm,
}
