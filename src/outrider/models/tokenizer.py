"""The tokenizer of a folder, which is what its tokenizer.json says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from outrider.errors import ModelError
from outrider.messages import reason, shown

FILE = "tokenizer.json"
PROBES = (
    "The end of the line, isn't it?",
    " two  spaces, three   and a tab\t.",
    "\n\nna\u00efve \u65e5\u672c\u8a9e \U0001f642 12345",
)
"""Spaces at the beginning and in rows, marks, newlines, digits, and characters of two to four bytes."""


class Probe(NamedTuple):
    """What becomes of a text: its tokens, and the text that they become again."""

    ids: list[int]
    text: str


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer in a folder, which need not hold a model. Raises ModelError.

    transformers has classes that take the vocabulary of a tokenizer.json and split text in their own way, and
    chooses one by the name in tokenizer_config.json. So the class is taken that reads all of the file, and
    what it makes of a few texts is compared with what the file says.
    """
    file = path / FILE
    whole = file.is_file()
    # The latter would read config.json, whose `num_labels` alone can take all memory.
    kind, options = (PreTrainedTokenizerFast, {}) if whole else (AutoTokenizer, {"config": LlamaConfig()})
    try:
        expected = _probes(Tokenizer.from_file(str(file))) if whole else []
        tokenizer = kind.from_pretrained(path, local_files_only=True, **options)
        is_fast = tokenizer.is_fast
        found = _probes(tokenizer.backend_tokenizer) if whole else []
        tokenizer(list(PROBES))  # settings of a wrong type come up only here
    except Exception as error:  # the libraries below raise anything, bare Exception included
        raise ModelError(f"{path}: the tokenizer cannot be loaded: {reason(error)}") from error
    if not is_fast:
        raise ModelError(f"{path}: only a slow tokenizer is available; a tokenizer.json is needed")
    for text, right, there in zip(PROBES, expected, found, strict=False):
        if right != there:
            raise ModelError(
                f"{path}: what transformers {transformers.__version__} makes of {FILE} is another "
                f"tokenizer: it reads {shown(text)} as {there.ids} and writes that as {shown(there.text)}; "
                f"tokenizers {tokenizers.__version__} has {right.ids} and {shown(right.text)}"
            )
    return tokenizer


def _probes(backend: Any) -> list[Probe]:
    """Without special tokens, which settings outside tokenizer.json may add."""
    backend.no_truncation()
    backend.no_padding()
    ids = [backend.encode(text, add_special_tokens=False).ids for text in PROBES]
    return [Probe(tokens, backend.decode(tokens, skip_special_tokens=False)) for tokens in ids]
