"""lm-eval and guidellm, as they are, on data that lies here: nothing is fetched from a hub."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from outrider.models.checkpoint import locate
from tests.clients.conftest import MODEL, Both

pytestmark = pytest.mark.timeout(600)  # both import what a trainer would
TASKS = Path(__file__).with_name("tasks")
QUESTIONS = [
    {"question": "The colour of the clear sky is", "choices": [" green", " blue", " red"], "answer": 1},
    {"question": "Grass is", "choices": [" green", " blue", " red"], "answer": 0},
]


def needs(name: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(name) is None
    return pytest.mark.skipif(missing, reason=f"{name} is not installed: make clients")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model's tokenizer, in the files that both of them read."""
    from transformers import AutoTokenizer

    model = locate(MODEL)
    path = tmp_path_factory.mktemp("tokenizer")
    AutoTokenizer.from_pretrained(str(model.parent), gguf_file=model.name).save_pretrained(path)
    return str(path)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks, with the data that they are about."""
    path = tmp_path_factory.mktemp("tasks")
    data = path / "questions.jsonl"
    data.write_text("".join(json.dumps(question) + "\n" for question in QUESTIONS))
    for task in TASKS.glob("*.yaml"):
        own = f"dataset_kwargs: {{data_files: {{test: {data}}}}}\n"
        (path / task.name).write_text(task.read_text() + own)
    return path


def run(module: str, *words: str, folder: Path) -> None:
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "-m", module, "run", *words],
        env=os.environ | offline, cwd=folder, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


@needs("lm_eval")
@pytest.mark.parametrize("chat", [False, True], ids=["local-completions", "local-chat-completions"])
def test_lm_eval(both: Both, tokenizer: str, tasks: Path, tmp_path: Path, chat: bool) -> None:
    """Log-probabilities of choices, and generated answers: results and samples are the same."""

    def ask(url: str) -> Any:
        out = tmp_path / url.rpartition(":")[2]
        if chat:
            given = f"model={MODEL},base_url={url}/v1/chat/completions"
            words = [
                "--model",
                "local-chat-completions",
                "--apply_chat_template",
                "--tasks",
                "outrider_words",
            ]
        else:
            given = f"model={MODEL},base_url={url}/v1/completions,tokenizer={tokenizer}"
            words = ["--model", "local-completions", "--tasks", "outrider_colours,outrider_words"]
        words += ["--model_args", given, "--include_path", str(tasks), "--output_path", str(out)]
        run("lm_eval", *words, "--log_samples", folder=tmp_path)
        (results,) = out.rglob("results_*.json")
        samples = [
            [json.loads(line)["resps"] for line in path.read_text().splitlines()]
            for path in sorted(out.rglob("samples_*.jsonl"))
        ]
        return json.loads(results.read_text())["results"], samples

    results, samples = both.same(ask)
    assert len(results) == len(samples) == (1 if chat else 2)
    assert all(len(responses) == len(QUESTIONS) for responses in samples)


@needs("guidellm")
def test_guidellm(both: Both, tokenizer: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    run(
        "guidellm",
        "--backend", f"kind=openai_http,target={both.speculating.url}",
        "--profile", "kind=synchronous",
        "--constraint", "kind=max_requests,count=2",
        "--tokenizer", f"kind=hf_auto,model={tokenizer}",
        "--data", "kind=synthetic_text,prompt_tokens=32,output_tokens=8",
        "--output", f"kind=json,path={report}",
        "--disable-console",
        folder=tmp_path,
    )  # fmt: skip
    (benchmark,) = json.loads(report.read_text())["benchmarks"]
    totals = benchmark["metrics"]["request_totals"]
    assert totals["successful"] == 2
    assert totals["errored"] == 0
