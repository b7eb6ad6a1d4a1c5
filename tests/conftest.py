"""Models that many tests share, made once a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.factories import write_model, write_noisy_copy
from tests.heads import write_head


def pytest_addoption(parser: pytest.Parser) -> None:
    """They stand here, since pytest reads options of this folder's conftest.py alone."""
    parser.addoption("--fuzz-seconds", type=float, default=5.0, help="how long each fuzzer runs")
    parser.addoption("--lossless-model", help="for test_tools_lossless.py, in place of a tiny random one")
    parser.addoption("--fuzz-seed", type=int, default=0, help="number of each fuzzer's first case")


@pytest.fixture(scope="session", autouse=True)
def _two_threads() -> None:
    torch.set_num_threads(2)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that a test learns about costs is left to the user, and nothing of theirs is read: neither
    costs nor models of the hub that were downloaded before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        hub = str(tmp_path_factory.mktemp("hub"))
        patch.setenv("HF_HUB_CACHE", hub)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", hub)
        yield


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny tensors: a second thread would only be waited for, the longer the busier the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _same_random_data_every_time() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny random Llama, alone in its folder."""
    path: Path = tmp_path_factory.mktemp("target") / "model"
    write_model(path)
    return str(path)


@pytest.fixture(scope="session")
def draft(target: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The target with noise on its weights: some of its guesses stand, some fall."""
    path = tmp_path_factory.mktemp("draft")
    write_noisy_copy(path, write_model(tmp_path_factory.mktemp("copied")), noise=0.05)
    return str(path)


@pytest.fixture(scope="session")
def head(target: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A head that was trained on the target: some of its guesses stand, some fall."""
    path = tmp_path_factory.mktemp("head")
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as `one_thread` says
    write_head(path, target)
    torch.set_num_threads(before)
    return str(path)
