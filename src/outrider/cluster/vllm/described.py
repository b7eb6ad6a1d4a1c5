"""What a model's files say of it whose weights vLLM reads: no weight is read, and none need be here."""

from __future__ import annotations

from dataclasses import dataclass

from outrider.cluster.vllm.text import FILES
from outrider.errors import ModelError
from outrider.formats.floats import BF16
from outrider.formats.format import Format
from outrider.models.checkpoint import locate
from outrider.models.config import ModelConfig, model_config
from outrider.models.folder import FolderCheckpoint
from outrider.models.json_file import read_json
from outrider.models.registry import config_settings
from outrider.models.schemes import scheme_of
from outrider.models.tensors import Tensor
from outrider.planning.ledger import Headers


@dataclass(frozen=True)
class Announced:
    """A model, or a head beside it, whose matrices are floats of whatever type vLLM is told."""

    config: ModelConfig
    quantised_by: None = None

    def format(self, tensor: Tensor) -> Format:
        return BF16


def described(model: str, revision: str | None = None) -> Headers:
    """The headers of a model's files where they are on this disk, else what its config.json implies.

    Raises ModelError for a family that is not known, and for quantised weights that are elsewhere.
    """
    path = locate(model, revision, FILES)
    if any(path.glob("*.safetensors")):
        return FolderCheckpoint(path)
    if not (path / "config.json").is_file():
        raise ModelError(f"{path} holds no config.json; vLLM reads folders of Hugging Face's layout")
    raw = read_json(path / "config.json")
    if scheme := scheme_of(raw, path).name:
        raise ModelError(
            f"{model}: its weights are quantised ({scheme}) and not on this disk; only their headers say how "
            "large they are: give a folder that has them"
        )
    family, settings = config_settings(raw, str(path), None)
    return Announced(model_config(family, settings))
