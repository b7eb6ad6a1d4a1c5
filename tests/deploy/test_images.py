"""The Dockerfile by hadolint, and Compose's file by its specification."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.manifests import DEPLOY

ROOT = DEPLOY.parent
COMPOSE = DEPLOY / "compose" / "compose.yaml"


def hadolint(dockerfile: Path) -> tuple[int, str]:
    """Exit status and what it says."""
    program = shutil.which("hadolint", path=sysconfig.get_path("scripts")) or shutil.which("hadolint")
    if program is None:
        pytest.skip("the extra `deploy` is not installed")
    done = subprocess.run(
        [program, "--no-color", str(dockerfile)], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout


def test_hadolint_finds_nothing_wrong(tmp_path: Path) -> None:
    """And does so in a file that has a fault."""
    assert hadolint(ROOT / "Dockerfile") == (0, "")
    (tmp_path / "Dockerfile").write_text("FROM python\nUSER root\nCMD outrider serve\n")
    status, said = hadolint(tmp_path / "Dockerfile")
    assert status != 0
    assert "DL3006" in said  # no version of the image


def valid(document: dict[str, Any]) -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="the extra `deploy` is not installed")
    compose = compose_spec.PyCompose.from_yaml(yaml.safe_dump(document))
    compose.validate()
    compose.to_spec()


def test_compose_is_valid() -> None:
    valid(yaml.safe_load(COMPOSE.read_text()))


@pytest.mark.parametrize(
    "fault",
    [
        {"prot": ["127.0.0.1:8000:8000"]},
        {"ports": ["8000:eight"]},
        {"secrets": ["nobody"]},
    ],
    ids=lambda fault: next(iter(fault)),
)
def test_a_fault_in_compose_is_found(fault: dict[str, Any]) -> None:
    document = yaml.safe_load(COMPOSE.read_text())
    document["services"]["outrider"].update(fault)
    with pytest.raises(Exception):  # noqa: B017 -- the library's own, of several kinds
        valid(document)
