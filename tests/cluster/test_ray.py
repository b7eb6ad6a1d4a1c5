"""`outrider serve --replicas` on a Ray of its own, whose replicas are killed."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from outrider import LLM, SamplingParams
from tests.cluster.ray_processes import PATIENCE, replicas, served, until_there
from tests.serving.harness import until

try:
    import ray  # noqa: F401
except Exception as error:  # whatever Ray meets in packages beside it
    pytest.skip(f"Ray cannot be imported (extra 'cluster'): {error!r}", allow_module_level=True)

OPTIONS = ("-s", "device=cpu", "--max-model-len", "512", "--cores-per-replica", "1")
BODY: dict[str, Any] = {
    "prompt": "the end of the end",
    "max_tokens": 400,
    "ignore_eos": True,
    "return_token_ids": True,
}


@pytest.mark.timeout(2 * PATIENCE)
def test_replicas(target: str) -> None:
    """One application and several questions, since starting Ray takes long."""
    with served(target, "--replicas", "2", *OPTIONS) as (http, server):
        _answers(http)
        _prompts_go_where_they_are_cached(http)
        _large_answers_pass(http)
        _streams_outlive_replicas(http, target, server.process.pid)


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
    assert http.post("/api/show", json={"model": ""}).status_code < 500


def _prompts_go_where_they_are_cached(http: httpx.Client) -> None:
    """Both replicas have some."""
    seen: dict[int, str] = {}
    for _ in range(2):
        for first in range(6):
            body = {"prompt": [20 + first] * 64, "max_tokens": 1, "ignore_eos": True}
            answer = http.post("/v1/completions", json=body)
            cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
            replica = answer.headers["x-outrider-replica"]
            assert (cached > 0) == (first in seen)
            assert seen.setdefault(first, replica) == replica
    assert len(set(seen.values())) == 2


def _large_answers_pass(http: httpx.Client) -> None:
    """More than the 4 MB that gRPC takes of one message unless it is told otherwise."""
    body = BODY | {"n": 48, "logprobs": 20, "temperature": 1.0}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    assert [len(choice["token_ids"]) for choice in answer.json()["choices"]] == [400] * 48


def _streams_outlive_replicas(http: httpx.Client, target: str, server: int) -> None:
    """Each ends as the offline engine's, and some have been with several replicas."""
    llm = LLM(target, device="cpu", max_model_len=512)
    params = [
        SamplingParams(temperature=1.0, max_tokens=400, ignore_eos=True, seed=seed) for seed in range(8)
    ]
    offline = llm.generate([BODY["prompt"]] * 8, params, use_tqdm=False)
    expected = [list(output.outputs[0].token_ids) for output in offline]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):  # a kill may come too early or too late
            until_there(2, server)
            bodies = [BODY | {"seed": seed, "temperature": 1.0} for seed in range(8)]
            running = [pool.submit(http.post, "/v1/completions", json=body) for body in bodies]
            time.sleep(0.2)
            replicas(server)[0].kill()
            answers = [one.result() for one in running]
            assert [answer.status_code for answer in answers] == [200] * 8
            assert [answer.json()["choices"][0]["token_ids"] for answer in answers] == expected
            if any("," in answer.headers["x-outrider-replica"] for answer in answers):
                return
    pytest.fail("no stream was ever with two replicas")
