"""`make` downloads no CUDA that nobody asked for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# In place of the environment's Python: it tells what pip would install, and notes what it was told to.
PYTHON = """#!/bin/sh
case "$*" in
  *--report*) cat "{folder}/report.json" ;;
  *) echo "$*" >> "{folder}/installed" ;;
esac
"""


def make(folder: Path, requirement: str, *arguments: str, goal: str = ".torch") -> tuple[int, str, bool]:
    """Exit status, what stderr says, and whether PyTorch was installed."""
    python = folder / "bin" / "python"
    python.parent.mkdir()
    python.write_text(PYTHON.format(folder=folder))
    python.chmod(0o755)
    report = {"install": [{"metadata": {"name": "torch", "requires_dist": ["filelock", requirement]}}]}
    (folder / "report.json").write_text(json.dumps(report, indent=2))
    command = ["make", f"VENV={folder}", f"{folder}/{goal}", *arguments]
    # Not as a part of the `make` that runs the tests.
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "WITH_CUDA")}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    installed = (folder / "installed").read_text().split("\n") if (folder / "installed").exists() else []
    return done.returncode, done.stderr, any(line.endswith(" torch") for line in installed)


CUDA = ["nvidia-cublas-cu12==12.8.4.1; platform_system == 'Linux'", "cuda-toolkit[cublas]==13.0.3"]


@pytest.mark.parametrize("requirement", CUDA)
def test_cuda_is_not_installed_unasked(requirement: str, tmp_path: Path) -> None:
    status, error, installed = make(tmp_path, requirement)
    assert status != 0
    assert "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test" in error
    assert not installed


def test_a_cpu_build_is_installed(tmp_path: Path) -> None:
    assert make(tmp_path, "sympy>=1.13.3") == (0, "", True)


def test_cuda_is_installed_where_it_is_asked_for(tmp_path: Path) -> None:
    assert make(tmp_path, CUDA[0], "WITH_CUDA=1") == (0, "", True)


@pytest.mark.parametrize("goal", [".demo", ".docs"])
def test_the_demo_and_the_site_need_no_pytorch(goal: str, tmp_path: Path) -> None:
    assert make(tmp_path, CUDA[0], goal=goal) == (0, "", False)


def test_the_site_needs_its_own_extra_alone(tmp_path: Path) -> None:
    make(tmp_path, CUDA[0], goal=".docs")
    installed = (tmp_path / "installed").read_text()
    assert "--editable .[docs]\n" in installed
    assert ".[test]" not in installed
