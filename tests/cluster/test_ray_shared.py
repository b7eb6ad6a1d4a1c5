"""A Ray that runs already: applications come to it, grow, are updated, and go."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from typing import Any

import httpx
import pytest

from outrider import LLM, SamplingParams
from tests.cluster.ray_processes import PATIENCE, replicas, served, until_there
from tests.serving.harness import until

try:
    import ray
    from ray import serve

    from outrider.cluster.replicas import app
    from outrider.cluster.run import OBJECT_STORE
except Exception as error:  # whatever Ray meets in packages beside it
    pytest.skip(f"Ray cannot be imported (extra 'cluster'): {error!r}", allow_module_level=True)

PROMPT = "the end of the end"
SEEDS = 6
OPTIONS: dict[str, Any] = {"device": "cpu", "max_model_len": 512}
Told = list[int] | str
"""The tokens of a stream, or the error that it ended with."""


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[str, str]]:
    """The address of Ray, and the URL of Serve's proxy."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ray.init(
        "local",
        num_cpus=8,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield ray.get_runtime_context().gcs_address, f"http://127.0.0.1:{port}"
    serve.shutdown()
    ray.shutdown()


def expected(model: str) -> list[list[int]]:
    """What each seed makes of the prompt."""
    params = [
        SamplingParams(temperature=1.0, max_tokens=400, ignore_eos=True, seed=seed) for seed in range(SEEDS)
    ]
    outputs = LLM(model, **OPTIONS).generate([PROMPT] * SEEDS, params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def ask(http: httpx.Client, seed: int) -> Told:
    body = {"prompt": PROMPT, "temperature": 1.0, "max_tokens": 400, "ignore_eos": True, "seed": seed}
    answer = http.post("/v1/completions", json=body | {"return_token_ids": True})
    if answer.status_code != 200:
        return answer.text
    tokens: list[int] = answer.json()["choices"][0]["token_ids"]
    return tokens


@contextmanager
def asking(http: httpx.Client) -> Iterator[list[tuple[int, Future[Told]]]]:
    """Clients that ask one thing after the other meanwhile: seeds, and what was told."""
    asked: list[tuple[int, Future[Told]]] = []
    done, numbers = threading.Event(), count()

    def client() -> None:
        while not done.is_set():
            seed = next(numbers) % SEEDS
            told: Future[Told] = Future()
            asked.append((seed, told))
            try:
                told.set_result(ask(http, seed))
            except Exception as error:
                told.set_exception(error)

    with ThreadPoolExecutor(SEEDS) as pool:
        clients = [pool.submit(client) for _ in range(SEEDS)]
        try:
            yield asked
        finally:
            done.set()
    for one in clients:
        one.result()


@pytest.mark.timeout(3 * PATIENCE)
def test_a_queue_brings_replicas(shared: tuple[str, str], target: str) -> None:
    """Ray Serve waits for half a minute before it starts one. What ends leaves Ray as it was."""
    address, _ = shared
    right = expected(target)
    elastic = ("--replicas", "1", "--max-replicas", "2", "--cores-per-replica", "1", "-s", "max_num_seqs=2")
    with served(target, *elastic, "--ray-address", address, "-s", "device=cpu", "--max-model-len", "512") as (
        http,
        _,
    ):
        until_there(1)
        with asking(http) as asked:
            until_there(2)
            names = 'replica="'
            until(lambda: len({line.split(names)[1][:8] for line in _figures(http)}) == 2, PATIENCE)
        assert all(told.result() == right[seed] for seed, told in asked)
    until(lambda: not replicas(), PATIENCE)
    assert not serve.status().applications


def _figures(http: httpx.Client) -> list[str]:
    return [line for line in http.get("/metrics").text.splitlines() if 'replica="' in line]


@pytest.mark.timeout(3 * PATIENCE)
def test_updates(shared: tuple[str, str], target: str, draft: str) -> None:
    """With other options no stream is lost, and none changes. With another model each is of the one or of the
    other, and what cannot go on says so."""
    _, url = shared
    old, other = expected(target), expected(draft)
    arguments = {"model": target, "replicas": 2, "options": OPTIONS, "server": {"model_name": "tiny"}}
    with httpx.Client(base_url=url, timeout=PATIENCE) as http, ThreadPoolExecutor(1) as pool:
        serve.run(app(arguments), name="tiny")
        before = {process.pid for process in replicas()}
        with asking(http) as asked:
            serve.run(app(arguments | {"options": {**OPTIONS, "max_num_seqs": 4}}), name="tiny")
            until(lambda: not before & {process.pid for process in replicas()}, PATIENCE)
        assert asked
        assert [told.result() == old[seed] for seed, told in asked] == [True] * len(asked)

        with asking(http) as asked:
            until(lambda: any(told.done() for _, told in asked))
            before = {process.pid for process in replicas()}
            updating = pool.submit(serve.run, app(arguments | {"model": draft}), name="tiny")
            until(lambda: any(told.done() and told.result() == other[seed] for seed, told in asked), PATIENCE)
            for process in replicas():
                if process.pid in before:
                    process.kill()  # its streams can go on with the other model alone
            updating.result()
        told = [(seed, told.result()) for seed, told in asked]
        assert {isinstance(one, str) or one in (old[seed], other[seed]) for seed, one in told} == {True}
        assert {one for _, one in told if isinstance(one, str) and "replaced by another" not in one} == set()
        assert any(one == old[seed] for seed, one in told)
    serve.delete("tiny")
