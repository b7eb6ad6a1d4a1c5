"""What is imported when: PyTorch and transformers not by the core, and what takes long where it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from pkgutil import walk_packages

import pytest

import outrider
from tests.factories import write_model

BLOCKING = "import sys; sys.modules.update(dict.fromkeys({blocked!r}))\n"
WHOLE = """
from importlib import import_module
for name in {modules!r}:
    import_module(name)
from outrider import LLM, SamplingParams
llm = LLM({model!r}, device="cpu", speculative_model="ngram")
params = SamplingParams(temperature=0, max_tokens=4)
print(llm.chat([{{"role": "user", "content": "the end"}}], params, use_tqdm=False)[0].outputs[0].token_ids)
"""
LOADED = """
import sys
before = set(sys.modules)
{code}
print(*(set(sys.modules) - before))
"""
STATUS = Path("/proc/self/status")
ON_PYTORCH = (
    "outrider.ops.torch", "outrider.ops.cuda",
    "outrider.training", "outrider.adapting.process", "outrider.adapting.rounds",
    "outrider.models.pickled", "outrider.__main__",
)  # fmt: skip
ON_VLLM = "outrider.cluster.vllm.states"
ON_RAY = tuple(f"outrider.cluster.{name}" for name in ("handle", "replicas", "router", "run"))
HEAVY = {
    "ray",
    "torch",
    "transformers",
    "llguidance",
    "matplotlib",
    "fastapi",
    "uvicorn",
    "zeus",
    "httpx",
    "jinja2",
}


def run(code: str, *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_nothing_needs_transformers(tmp_path: Path) -> None:
    """Every module is imported, and a model in Hugging Face's files generates."""
    write_model(tmp_path)
    found = walk_packages(outrider.__path__, "outrider.", onerror=pytest.fail)
    apart = (*ON_RAY, ON_VLLM, "outrider.__main__")
    modules = [module.name for module in found if not module.name.startswith(apart)]
    assert "outrider.models.tokenizer" in modules
    blocking = BLOCKING.format(blocked={"transformers"})
    tokens = run(blocking + WHOLE.format(modules=modules, model=str(tmp_path)))
    assert tokens.startswith("(")


@pytest.mark.parametrize(
    "code",
    [
        "import outrider",
        "from outrider import SamplingParams, RequestOutput, ConfigError",
        "import outrider.models.tokenizer",
        "from outrider.cli.app import app",
    ],
)
def test_what_takes_long_is_not_imported(code: str) -> None:
    """The tokenizer and the command line stand without it."""
    assert not HEAVY & set(run(LOADED.format(code=code)).split())


@pytest.mark.parametrize("arguments", [["--help"], ["models"], ["generate", "--help"], ["--version"]])
def test_commands_that_need_no_model(arguments: list[str]) -> None:
    code = BLOCKING.format(blocked=HEAVY) + "from outrider.cli import main; main()"
    assert run(code, *arguments)


def test_importing_the_engine_imports_nothing_that_takes_long() -> None:
    """PyTorch, a grammar's library and the hub's client come where they are used."""
    assert not HEAVY & set(run(LOADED.format(code="from outrider import LLM")).split())


def test_the_core_imports_no_pytorch() -> None:
    """Not one module of it, each imported where PyTorch cannot be."""
    found = walk_packages(outrider.__path__, "outrider.", onerror=pytest.fail)
    core = [module.name for module in found if not module.name.startswith((*ON_PYTORCH, *ON_RAY, ON_VLLM))]
    assert {"outrider.engine.build", "outrider.serving.server", "outrider.planning.limit"} < set(core)
    code = f"from importlib import import_module\nfor name in {core!r}: import_module(name)"
    run(BLOCKING.format(blocked={"torch", "transformers", "ray"}) + code)


@pytest.mark.skipif(not STATUS.exists(), reason="this system does not say what a process takes")
def test_importing_the_package_is_cheap() -> None:
    """The bar is 60 MiB, and 10 of them are Python's own."""
    code = f"import outrider; print(open({str(STATUS)!r}).read())"
    (size,) = re.findall(r"VmRSS:\s+(\d+) kB", run(code))
    assert int(size) < 60 * 1024
