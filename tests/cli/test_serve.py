"""`outrider serve`: options as `vllm serve` has them, and what it says on a terminal."""

from __future__ import annotations

import json
import logging
import shlex
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from outrider import LLM, ConfigError
from outrider.cli.app import app
from outrider.cli.vllm_flags import FLAGS, RULES, read
from outrider.foreign import Ignored
from outrider.machine.cores import default_threads, threads_reason
from outrider.serving.logs import TextFormatter
from tests.cli.terminal import Terminal
from tests.engine.helpers import load
from tests.serving.test_process import serving

OWN = {"--host", "--port", "--strict"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (["m", "--host", "::1", "--strict"], ["m", "--host", "::1", "--strict"]),
        (["--max-num-seqs", "8"], ["--set", "max_num_seqs=8"]),
        (["--max_num_seqs=8"], ["--set", "max_num_seqs=8"]),
        (["--enable-prefix-caching", "m"], ["--set", "enable_prefix_caching=True", "m"]),
        (["--no-enable-prefix-caching"], ["--set", "enable_prefix_caching=False"]),
        (["-q", "int8"], ["--set", "quantization=int8"]),
        (["--nonsense", "7"], ["--nonsense", "7"]),
        (["--", "--max-num-seqs"], ["--", "--max-num-seqs"]),
    ],
)
def test_options_of_llm_by_their_own_names(given: list[str], kept: list[str]) -> None:
    assert read(given, OWN) == (kept, [])


def test_options_of_vllm_that_change_no_answer() -> None:
    idle = {name.replace("_", "-") for name, rule in RULES["outrider"].items() if isinstance(rule, Ignored)}
    flags = {f"--{name}" for name in FLAGS if name.removeprefix("no-") in idle}
    valued = {f"--{name}" for name in idle - FLAGS}
    assert len(flags) > 15
    assert len(valued) > 50
    given = [*flags, *(word for option in valued for word in (option, "0.9")), "--load-format=auto"]
    kept, ignored = read([*given, "-tp", "1", "--host", "x"], OWN)
    assert kept == ["--host", "x"]
    assert {*ignored} == flags | valued | {"--load-format", "--tensor-parallel-size"}


@pytest.mark.parametrize(
    "given", [["-tp", "2"], ["--tensor-parallel-size=2"], ["--tensor_parallel_size", "2"], ["--enable-lora"]]
)
def test_what_is_not_there_is_refused(given: list[str]) -> None:
    with pytest.raises(
        ConfigError, match=r"outrider serve cannot do (tensor_parallel_size = 2|enable_lora = True): "
    ):
        read(given, OWN)


def test_a_flag_is_known_by_what_follows() -> None:
    ignored = ["--disable-cascade-attn", "--swap-space"]
    assert read(["--disable-cascade-attn", "--swap-space", "4", "m"], OWN) == (["m"], ignored)


def test_an_option_of_vllm_that_has_another_name_here() -> None:
    assert read(["--kv-cache-memory-bytes", "64"], OWN) == (["--set", "kv_cache_memory=64"], [])


def test_a_command_line_of_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def built(self: LLM, model: str, **given: Any) -> None:
        given.pop("listener")
        raise Reached(model, given)

    monkeypatch.setattr(LLM, "__init__", built)
    line = """
        serve org/name --port 0 --host 127.0.0.1 --max-model-len 4096 --dtype float32 --enforce-eager
        --gpu-memory-utilization 0.9 --generation-config vllm --trust-remote-code --max-num-seqs 8
        --speculative-config '{"method": "ngram", "num_speculative_tokens": 3}' --chat-template '{{ x }}'
        --allowed-origins '["https://a.example", "https://b.example"]' --enable-auto-tool-choice
        --override-generation-config '{"top_k": 3}'
    """
    result = CliRunner().invoke(app, shlex.split(line))
    assert isinstance(result.exception, Reached), result.output
    model, given = result.exception.args
    assert model == "org/name"
    assert given == {
        "engine": "outrider",
        "max_model_len": 4096,
        "dtype": "float32",
        "enforce_eager": "True",
        "gpu_memory_utilization": "0.9",
        "generation_config": "vllm",
        "max_num_seqs": "8",
        "speculative_config": {"method": "ngram", "num_speculative_tokens": 3},
        "chat_template": "{{ x }}",
        "override_generation_config": {"top_k": 3},
        "scheduling_policy": "fcfs",
    }
    assert result.output.count("without effect") == 1
    assert "--trust-remote-code, --enable-auto-tool-choice" in result.output


def test_another_chat_template(target: str, tmp_path: Path) -> None:
    source = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    (tmp_path / "chat.jinja").write_text(source)
    for given in (source, str(tmp_path / "chat.jinja")):
        assert load(target, chat_template=given).chat_text([{"role": "user", "content": "hi"}]) == "[hi]"
    with pytest.raises(ConfigError, match=r"chat_template = 'none\.jinja' cannot be read: No such file"):
        load(target, chat_template="none.jinja")


def test_a_terminal_sees_a_banner_and_words(target: str) -> None:
    began = time.monotonic()
    arguments = ("serve", target, "-d", "ngram", "--port", "0", "--served-model-name", "tiny")
    with Terminal(*arguments) as terminal:
        terminal.wait_for("starting")
        said = terminal.wait_for("try it:")
        assert time.monotonic() - began < 60
        url = next(word for word in said.split() if word.endswith("/v1")).removesuffix("/v1")
        for told in ("tiny, up to 1024 tokens", "suffix", f"{default_threads()} (", "MiB", f"{url}/\r\n"):
            assert told in said
        command = terminal.wait_for("}]}'").replace("\r\n", "\n").replace("\\\n", "")
        words = shlex.split(command)
        answer = httpx.post(words[1], content=words[-1], headers={"Content-Type": "application/json"})
        assert answer.status_code == 200
        line = terminal.wait_for("tokens")
        assert "POST /v1/chat/completions 200, " in line
        assert "{" not in line
        terminal.press_ctrl_c()
        terminal.wait_for("stopped")
        assert terminal.wait() == 0
        assert "Traceback" not in terminal.text


def test_json_is_had_for_the_asking_and_without_a_terminal(target: str) -> None:
    with Terminal("serve", target, "--port", "0", "--log-format", "json") as terminal:
        said = [
            json.loads(line[line.index("{") :]) for line in (terminal.wait_for("}"), terminal.wait_for("}"))
        ]
        assert said[0]["message"].startswith("drafters of ")
        assert said[1]["message"] == "listening"
        assert said[1]["threads"] == f"{default_threads()} ({threads_reason(None)})"
    with serving(target, "--port", "0", "--log-format", "auto") as server:
        assert server.url()


def test_nothing_in_a_line_steers_the_terminal() -> None:
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "a \x1b[2J %s", ("\r\n",), None)
    record.fields = {"path": "\x9b31m"}
    line = TextFormatter().format(record)
    assert line.isprintable()
    assert line.endswith(r" warning: a \x1b[2J \r\n: path \x9b31m")
