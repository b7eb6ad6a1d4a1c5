"""A run that is killed at any moment, and started again with the same command."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from outrider.training.distill import distill
from outrider.training.settings import DistillConfig, Pace
from outrider.training.shards import Shards

pytestmark = pytest.mark.usefixtures("one_thread")

PACE = Pace(sequences=12, turn=24)
RUN = """
import math, sys
import torch
from pathlib import Path
from outrider.training.distill import distill
from outrider.training.settings import DistillConfig, Pace

class Told:
    def data(self, tokens, total): print("data", flush=True)
    def trained(self, steps, total, loss): print("trained", flush=True)
    def scored(self, score): pass

torch.set_num_threads(1)
pace = Pace(sequences=12, turn=24, save=0.0, saving=math.inf)
distill(DistillConfig(target=sys.argv[1], out=Path(sys.argv[2]), **SETTINGS), Told(), pace)
"""
SETTINGS = {"tokens": 4000, "draft_vocab_size": (128,), "unrolled": (1, 2), "learning_rate": 5e-3}


class Quiet:
    def data(self, tokens: int, total: int) -> None: ...

    def trained(self, steps: int, total: int, loss: float) -> None: ...

    def scored(self, score: object) -> None: ...

    def measured(self, shape: str, tokens_per_s: float) -> None: ...


@pytest.fixture(scope="module")
def whole(target: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """What nothing interrupted."""
    out: Path = tmp_path_factory.mktemp("whole")
    distill(DistillConfig(target=target, out=out, **SETTINGS), Quiet(), PACE)  # type: ignore[arg-type]
    return out


def test_killed_again_and_again(target: str, whole: Path, tmp_path: Path) -> None:
    """In the making of data, and in the training: at some moment of what comes after a line,
    be it a shard or a checkpoint that is written. What is made in the end is what one run makes."""
    draw = random.Random(0)
    code = RUN.replace("SETTINGS", repr(SETTINGS))
    command = [sys.executable, "-c", code, target, str(tmp_path)]
    for line, times in (("data", 3), ("trained", 2)):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            while times:
                said = process.stdout.readline().strip()
                assert said, "it ended before it was killed"
                times -= said == line
            time.sleep(draw.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    distill(DistillConfig(target=target, out=tmp_path, **SETTINGS), Quiet(), PACE)  # type: ignore[arg-type]
    files = sorted(path.relative_to(tmp_path) for path in (tmp_path / "work" / "data").iterdir())
    assert files == sorted(path.relative_to(whole) for path in (whole / "work" / "data").iterdir())
    assert all((tmp_path / file).read_bytes() == (whole / file).read_bytes() for file in files)
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, tmp_path))
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_shard_that_is_missing_is_made_again(target: str, whole: Path, tmp_path: Path) -> None:
    """And is the same, whatever comes after it."""
    shards = Shards(tmp_path / "work" / "data")
    (tmp_path / "work" / "settings.json").write_text((whole / "work" / "settings.json").read_text())
    made = Shards(whole / "work" / "data").paths()
    assert len(made) >= 3
    for path in made:
        (shards.folder / path.name).write_bytes(path.read_bytes())
    shards.paths()[1].unlink()
    distill(DistillConfig(target=target, out=tmp_path, **SETTINGS), Quiet(), PACE)  # type: ignore[arg-type]
    assert [path.read_bytes() for path in shards.paths()] == [path.read_bytes() for path in made]
