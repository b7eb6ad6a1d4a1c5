"""What the Dockerfile, the workflows and CI name is there. They run where there is Docker, and on GitHub."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from outrider.cli.app import app

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: each instruction, in capitals, and what follows it."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def of(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def goals(text: str) -> set[str]:
    """What `make` is asked for in it."""
    return set(re.findall(r"(?m)^(?:\s*- run: )?\s*make ([a-z-]+)", text))


def test_the_image_copies_what_there_is() -> None:
    """Nothing of it is kept from Docker by .dockerignore, which keeps all else."""
    allowed = re.findall(r"(?m)^!(.+)$", (ROOT / ".dockerignore").read_text())
    copied = [path for rest in of("COPY") if "--from" not in rest for path in rest.split()[:-1]]
    assert {"native", "src", "pyproject.toml"} <= {*copied}
    assert sorted(copied) == sorted(allowed)
    assert all((ROOT / path).exists() for path in copied)
    cmake = (ROOT / "CMakeLists.txt").read_text()
    assert {path.split("/")[0] for path in re.findall(r"\w+/\w+\.cpp", cmake)} <= {*copied}


def test_the_image_installs_extras_that_there_are() -> None:
    extras = re.findall(r"\.whl\)\[([a-z,]+)\]", " ".join(of("RUN")))
    assert len(extras) == 4
    assert {*",".join(extras).split(",")} <= PROJECT["project"]["optional-dependencies"].keys()
    (version,) = {re.split("[:-]", rest)[1] for rest in of("FROM") if ":" in rest}
    assert f"cp{version.replace('.', '')}" == PROJECT["tool"]["scikit-build"]["wheel"]["py-api"]


def test_stages_are_made_of_stages_that_there_are() -> None:
    """The last one is what is built where none is named."""
    stages = [re.fullmatch(r"(\S+) AS (\S+)", rest) for rest in of("FROM")]
    names = [stage[2] for stage in stages if stage is not None]
    bases = [stage[1] for stage in stages if stage is not None and ":" not in stage[1]]
    copied = re.findall(r"--from=(\S+)", " ".join(of("COPY")))
    assert len(names) == len(stages) == len({*names})
    assert {*bases, *copied} <= {*names}
    assert names[-1] == "cpu"


def test_the_image_serves_as_nobody_in_particular() -> None:
    """The command understands its words, and every image that is run leaves root."""
    entry, default = (json.loads(of(name)[0]) for name in ("ENTRYPOINT", "CMD"))
    command, name, *options = entry + default
    assert command in PROJECT["project"]["scripts"]
    context = COMMANDS[name].make_context(name, options)
    assert context.params["host"] == "0.0.0.0"
    packages = [rest for rest in of("COPY") if "--from=" in rest]
    users = of("USER")
    assert len(users) == len(packages) == 4
    assert {*users} == {"10001"}


def test_the_health_of_the_image_is_the_servers() -> None:
    """What is asked is a program that compiles, at the port and the path of the server."""
    (check,) = of("HEALTHCHECK")
    *_, code = json.loads(check[check.index("[") :])
    compile(code, "HEALTHCHECK", "exec")
    assert f":{of('EXPOSE')[0]}/health" in code
    port = next(each.default for each in COMMANDS["serve"].params if each.name == "port")
    assert of("EXPOSE") == [str(port)]


@pytest.mark.parametrize("path", [*WORKFLOWS, ROOT / ".ci" / "run"], ids=lambda path: path.name)
def test_what_is_made_there_has_a_rule(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    text = path.read_text()
    assert goals(text) or ".ci/run" in text
    for goal in goals(text):
        assert re.search(rf"(?m)^{goal}:", makefile), goal


def test_ci_runs_every_kind_of_check() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert goals(text) >= {"lint", "test", "fuzz", "docs", "check-native", "check-deploy", "sanitize"}
    assert goals((ROOT / ".github" / "workflows" / "ci.yml").read_text()) == {"cluster"}
    (chosen,) = re.findall(r'SANITIZED="(.*)"', text)
    for pattern in chosen.split():
        assert [*ROOT.glob(pattern)], pattern


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_may_no_more_than_they_need(path: Path) -> None:
    """Only the job that publishes gets an identity, and it waits for all others."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    with_rights = {name: job for name, job in workflow["jobs"].items() if "permissions" in job}
    if path.stem == "release":
        assert with_rights.keys() == {"publish"}
        assert with_rights["publish"]["permissions"] == {"id-token": "write"}
        assert {*with_rights["publish"]["needs"]} == workflow["jobs"].keys() - {"publish"}
    else:
        assert not with_rights


def test_a_released_wheel_has_its_kernels() -> None:
    """The build without a compiler is for those who install from source."""
    (fallback,) = PROJECT["tool"]["scikit-build"]["overrides"]
    assert fallback["if"] == {"failed": True, "env": {"CIBUILDWHEEL": False}}
    test = shlex.split(PROJECT["tool"]["cibuildwheel"]["test-command"])
    scripts = [b for a, b in pairwise(test) if a == "python"]
    assert scripts
    for script in scripts:
        assert (ROOT / script.removeprefix("{project}/")).is_file()


def test_one_wheel_serves_later_versions() -> None:
    """Python's stable ABI begins, for nanobind, with 3.12; each version before has a build of its own."""
    built = PROJECT["tool"]["cibuildwheel"]["build"]
    stable = PROJECT["tool"]["scikit-build"]["wheel"]["py-api"]
    least = int(re.findall(r">=3\.(\d+)", PROJECT["project"]["requires-python"])[0])
    assert stable == "cp312"
    assert built == [f"cp3{minor}-*" for minor in range(least, 13)]
    assert "STABLE_ABI" in (ROOT / "CMakeLists.txt").read_text()
