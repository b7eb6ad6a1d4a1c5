"""What tells apart engines that would answer the same request with other tokens."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

from outrider.llm import LLM
from outrider.models.checkpoint import files_at, locate, model_path

WHOLE = 2**26
"""Bytes of a file up to which all of it counts, such as a tokenizer's."""
PLACES, PLACE = 1024, 2**12
"""Of a larger file so many places count, evenly spread, of so many bytes each: that is read in a moment, and
weights that were trained further differ nearly everywhere."""


def identity_of(llm: LLM) -> str:
    """A digest of all that an answer depends on besides the request: the model's files and what its weights
    become. Engines with the same one may take over each other's requests; threads, batches and drafts change
    no token, and are left out.

    Raises ModelError where the files are gone.
    """
    config, engine = llm.config, llm.engine
    digest = sha256()
    paths = [model_path(config.model, config.revision)]
    if config.tokenizer is not None:
        paths.append(locate(config.tokenizer))
    for path in paths:
        for file in files_at(path):
            digest.update(digest_of_file(file))
    facts = (engine.weights, config.dtype, engine.facts.cache_dtype, config.max_model_len, _rule(llm))
    digest.update(repr(facts).encode())
    return digest.hexdigest()


def digest_of_file(path: Path) -> bytes:
    """Of its size and its bytes, or of a sample of these."""
    size = path.stat().st_size
    digest = sha256(str(size).encode())
    with path.open("rb") as file:
        if size <= WHOLE:
            digest.update(file.read())
        else:
            for number in range(PLACES):
                file.seek(number * (size - PLACE) // (PLACES - 1))
                digest.update(file.read(PLACE))
    return digest.digest()


def _rule(llm: LLM) -> str:
    speculative = llm.config.speculative
    return "coupled" if speculative is None else speculative.acceptance
