"""Which of the GGUF files in a folder or a repository is meant."""

from __future__ import annotations

import re
from collections.abc import Iterable

from outrider.errors import ModelError
from outrider.messages import listed
from outrider.models.gguf_split import part_names

ASIDE = re.compile(r"mmproj|imatrix", re.IGNORECASE)
"""In names of GGUF files that are no model, but belong to one: what sees images, and data to quantise by."""


def gguf_models(names: Iterable[str]) -> list[str]:
    """The models among the files, each by its name or, of a split model, by that of its first part."""
    files = [name for name in names if name.lower().endswith(".gguf") and not ASIDE.search(_bare(name))]
    return sorted({part_names(name)[0] for name in files})


def of_quantization(models: list[str], quantization: str, where: str) -> str:
    """The model whose name has a quantisation in it, as in 'name-Q4_K_M.gguf', in capitals or not.

    where: what holds the models, for messages. Raises ModelError where none or several have.
    """
    whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(quantization)}(?![A-Za-z0-9_])", re.IGNORECASE)
    found = [name for name in models if whole.search(name)]
    if not models:
        raise ModelError(f"{where} holds no GGUF file, so that there is no {quantization!r}")
    if not found:
        raise ModelError(f"{where} holds no GGUF file of {quantization!r}; there are {listed(models, 30)}")
    if len(found) > 1:
        raise ModelError(f"{where} holds several GGUF files of {quantization!r}: {listed(found, 30)}")
    return found[0]


def _bare(name: str) -> str:
    return name.rpartition("/")[2]
