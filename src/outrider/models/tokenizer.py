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


class Behaviour(NamedTuple):
    """Of a tokenizer. read: the tokens of each of `PROBES`, and the text that they become again; added: its
    added tokens."""

    read: list[tuple[list[int], str]]
    added: set[str]


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
        expected = _behaviour(Tokenizer.from_file(str(file))) if whole else None
        tokenizer = kind.from_pretrained(path, local_files_only=True, **options)
        is_fast = tokenizer.is_fast
        found = _behaviour(tokenizer.backend_tokenizer) if whole else None
        tokenizer(list(PROBES))  # settings of a wrong type come up only here
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the libraries below raise anything, and a panic of Rust is no Exception
        without = "" if whole else f" without a {FILE}"
        raise ModelError(f"{path}: the tokenizer cannot be loaded{without}: {reason(error)}") from error
    if not is_fast:
        raise ModelError(f"{path}: only a slow tokenizer is available; a tokenizer.json is needed")
    if expected is not None and found is not None:
        _check_same(expected, found, path)
    return tokenizer


def _behaviour(backend: Any) -> Behaviour:
    """Without special tokens, which settings outside tokenizer.json may put around a text."""
    backend.no_truncation()
    backend.no_padding()
    ids = [backend.encode(text, add_special_tokens=False).ids for text in PROBES]
    read = [(tokens, backend.decode(tokens, skip_special_tokens=False)) for tokens in ids]
    return Behaviour(read, {token.content for token in backend.get_added_tokens_decoder().values()})


def _check_same(expected: Behaviour, found: Behaviour, path: Path) -> None:
    """Texts aside in which stands a token that tokenizer_config.json adds."""
    more = found.added - expected.added
    for text, right, there in zip(PROBES, expected.read, found.read, strict=True):
        if right != there and not any(token in text for token in more):
            raise ModelError(
                f"{path}: what transformers {transformers.__version__} makes of {FILE} is another "
                f"tokenizer: it reads {shown(text)} as {there[0]} and writes that as {shown(there[1])}; "
                f"tokenizers {tokenizers.__version__} has {right[0]} and {shown(right[1])}"
            )
