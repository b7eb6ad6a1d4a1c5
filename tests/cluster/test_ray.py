"""The application on a Ray of its own, whose replicas are killed."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil
import pytest

from outrider import LLM, SamplingParams
from tests.serving.harness import PATIENCE, until

try:
    import ray  # noqa: F401
except Exception as error:  # whatever Ray meets in packages beside it
    pytest.skip(f"Ray cannot be imported (extra 'cluster'): {error!r}", allow_module_level=True)

REPLICA = "ray::ServeReplica:outrider:Replica"
BODY: dict[str, Any] = {
    "prompt": "the end of the end",
    "max_tokens": 400,
    "ignore_eos": True,
    "return_token_ids": True,
}


@pytest.fixture(scope="module")
def url(target: str) -> Iterator[str]:
    from outrider.cluster.run import replicated

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    arguments = {"model": target, "replicas": 2, "options": {"device": "cpu", "max_model_len": 512}}
    arguments["server"] = {"host": "127.0.0.1", "port": port, "model_name": "tiny"}
    with replicated(arguments, address=None, host="127.0.0.1", port=port) as (_, url):
        yield url


def processes() -> list[psutil.Process]:
    """The processes of the replicas."""
    there = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if " ".join(child.cmdline()).startswith(REPLICA):
                there.append(child)
    return there


@pytest.mark.timeout(300)
def test_replicas(url: str, target: str) -> None:
    """One application and several questions, since starting Ray takes long."""
    with httpx.Client(base_url=url, timeout=PATIENCE) as http:
        _answers(http)
        _streams_outlive_replicas(http, target)


def _answers(http: httpx.Client) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    answer = http.post(
        "/v1/completions", json={"prompt": "the", "max_tokens": 2}, headers={"x-request-id": "a"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-request-id"] == "a"
    replica = answer.headers["x-outrider-replica"]
    until(lambda: f'replica="{replica}"' in http.get("/metrics").text)
    refused = http.post("/v1/completions", json={"prompt": [1] * 600})
    assert (refused.status_code, refused.json()["error"]["type"]) == (400, "invalid_request_error")
    embedded = http.post("/v1/embeddings", json={"input": "the end"})
    assert "not meant for embeddings" in embedded.json()["error"]["message"]
    assert http.get("/").status_code == 200


def _streams_outlive_replicas(http: httpx.Client, target: str) -> None:
    """Each ends as the offline engine's, and some have been with several replicas."""
    llm = LLM(target, device="cpu", max_model_len=512)
    params = [
        SamplingParams(temperature=1.0, max_tokens=400, ignore_eos=True, seed=seed) for seed in range(8)
    ]
    offline = llm.generate([BODY["prompt"]] * 8, params, use_tqdm=False)
    expected = [list(output.outputs[0].token_ids) for output in offline]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):  # a kill may come too early or too late
            until(lambda: len(processes()) == 2)
            bodies = [BODY | {"seed": seed, "temperature": 1.0} for seed in range(8)]
            running = [pool.submit(http.post, "/v1/completions", json=body) for body in bodies]
            time.sleep(0.2)
            processes()[0].kill()
            answers = [one.result() for one in running]
            assert [answer.status_code for answer in answers] == [200] * 8
            assert [answer.json()["choices"][0]["token_ids"] for answer in answers] == expected
            if any("," in answer.headers["x-outrider-replica"] for answer in answers):
                return
    pytest.fail("no stream was ever with two replicas")
