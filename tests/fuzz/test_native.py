"""Random programs of native operations, in a process of their own that may die of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.fuzz import native_cases
from tests.ops import planted


def test_native_operations(fuzz_seconds: float, fuzz_seed: int, tmp_path: Path) -> None:
    at = tmp_path / "case"
    command = [sys.executable, "-m", native_cases.__name__, str(fuzz_seed), str(fuzz_seconds), str(at)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"case {at.read_text().strip()} ended with {done.returncode}\n{done.stderr}"
    assert int(done.stdout) >= 1


def _row(out: Tensor, values: list[Tensor], spans: int) -> None:
    if spans == 1 and not values:
        out[-1] = out[-1].nextafter(torch.tensor(torch.inf))


def _result(out: Tensor, values: list[Tensor], spans: int) -> None:
    for value in values[1:]:
        value *= 1.0001
    out *= 1.0001


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("fault", [_row, _result])
def test_a_planted_fault_is_found(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row that depends on the number of spans by its last bit, and results that are off by a little."""
    planted.change_results(monkeypatch, fault)
    with pytest.raises(AssertionError):
        native_cases.run(0, 20)


@pytest.mark.usefixtures("one_thread")
def test_a_planted_choice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    planted.choose_first(monkeypatch)
    with pytest.raises(AssertionError):
        native_cases.run(0, 20)
