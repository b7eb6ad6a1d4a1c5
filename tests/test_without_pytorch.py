"""The core in an environment without PyTorch and transformers, and what it says where they are needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outrider.extras import TORCH
from outrider.models.head_checkpoint import locate_head
from outrider.models.head_file import PICKLED

HIDING = "import sys\nfor name in ('torch', 'transformers'):\n    sys.modules[name] = None\n"
GENERATING = """
import json, sys
from outrider import LLM, SamplingParams
llm = LLM("smollm2", speculative_model=["ngram", "head"])
settings = (
    {"temperature": 0}, {"temperature": 0.8, "seed": 1, "repetition_penalty": 1.1, "logprobs": 2},
    {"temperature": 0, "structured_outputs": {"choice": ["Paris", "Rome"]}},
)
question = [{"role": "user", "content": "Write the word river ten times, then say what a river is."}]
found = []
for setting in settings:
    params = [SamplingParams(max_tokens=32, num_speculative_tokens=n, **setting) for n in (0, 4)]
    runs = [llm.chat(question, each, use_tqdm=False) for each in params]
    outputs = [run[0].outputs[0] for run in runs]
    found.append([[list(output.token_ids), output.speculation.accepted, output.text] for output in outputs])
print(json.dumps({"found": found, "device": llm.engine.facts.device, "torch": sys.modules["torch"]}))
"""


@pytest.fixture
def without(tmp_path: Path) -> dict[str, str]:
    """The environment of processes for which they are not installed, and for those that these start."""
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "sitecustomize.py").write_text(HIDING)
    return os.environ | {"PYTHONPATH": str(tmp_path / "hiding"), "COLUMNS": "500"}


def outrider(env: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "outrider", *arguments]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=120)


def test_smollm2_generates(without: dict[str, str]) -> None:
    """With n-gram and head, from a chat template and in a grammar, and the same tokens as alone."""
    command = [sys.executable, "-c", GENERATING]
    done = subprocess.run(command, env=without, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["device"], said["torch"]) == ("cpu", None)
    for alone, speculative in said["found"]:
        assert alone[0] == speculative[0]
        assert alone[1] == 0
    assert any(speculative[1] > 0 for _, speculative in said["found"])
    assert said["found"][2][0][2] in ("Paris", "Rome")


def test_plans_are_made(without: dict[str, str]) -> None:
    done = outrider(without, "plan", "--memory", "1GiB", "-d", "head", "--no-bandwidth", "--json")
    assert done.returncode == 0, done.stderr
    choices = json.loads(done.stdout)["choices"]
    assert {choice["drafter"] for choice in choices} == {"head", "suffix", "none"}
    assert all(choice["bytes"]["needed"] > 0 for choice in choices)


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["generate", "Hi", "-s", "backend=torch"], "backend = 'torch'"),
        (["generate", "Hi", "-s", "device=cuda"], "device = 'cuda'"),
        (["generate", "Hi", "-s", "dtype=float16"], "dtype = 'float16'"),
        (["plan", "--memory", "1GiB", "-s", "dtype=float64"], "dtype = 'float64'"),
        (["distill", "--target", "smollm2", "--out", "FOLDER/out"], "`outrider distill`"),
        (["serve", "--adapt", "--port", "0"], "--adapt"),
        (["generate", "Hi", "-d", "FOLDER/head"], f"reading 'FOLDER/head/{PICKLED}'"),
        (["plan", "--memory", "1GiB", "-d", "FOLDER/head"], f"reading 'FOLDER/head/{PICKLED}'"),
    ],
)
def test_what_needs_pytorch_says_so(
    without: dict[str, str], arguments: list[str], what: str, tmp_path: Path
) -> None:
    """In one line, with the command that installs the CPU's build."""
    (tmp_path / "head").mkdir()
    shutil.copy(locate_head("head") / "config.json", tmp_path / "head")
    (tmp_path / "head" / PICKLED).write_bytes(b"a pickle")
    done = outrider(without, *(argument.replace("FOLDER", str(tmp_path)) for argument in arguments))
    assert done.returncode == 2
    expected = TORCH.lack(what.replace("FOLDER", str(tmp_path)), "torch")
    assert done.stderr.splitlines()[-1] == f"error: {expected}"
    assert "pip install 'outrider[torch]' --extra-index-url https://download.pytorch.org/whl/cpu" in expected
