"""Outputs that have to fit a grammar: which tokens may come next, through the library llguidance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from threading import Lock

import numpy as np
import torch
from llguidance import GrammarFormat, LLMatcher, LLParserLimits, LLTokenizer, grammar_from
from llguidance.hf import from_tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from outrider.errors import RequestError
from outrider.params import StructuredOutputs

CACHED = 64  # compiled grammars
ITEMS_IN_ROW = 100_000  # ways on that a grammar may have at a place: as many as a long list of choices has
TRIED = 2  # tokens, before a grammar is used: one that is too much is seldom so from the first


class Grammars:
    """Compiles grammars for one model; the same one is compiled once. May be used from several threads.

    What the library needs to know of a tokenizer takes seconds to find out for a large vocabulary, and is
    found out at the first use.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocab: int, eos: Sequence[int]) -> None:
        self._source = tokenizer
        self._vocab = vocab
        self._eos = list(eos)
        self._compiled: dict[tuple[GrammarFormat, str], LLMatcher] = {}
        self._lock = Lock()

    def compile(self, wanted: StructuredOutputs, *, anew: bool = False) -> LLMatcher:
        """A matcher at the beginning of an output; copy it before use. Raises RequestError.

        anew: whatever is in the cache. Copies share a lexer, and one that has run into a limit of the
        library's fails all of them.
        """
        try:
            source = _source(wanted)
            found = None if anew else self._compiled.get(source)
            return self._keep(source, self._compile(*source)) if found is None else found
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise RequestError(f"structured_outputs.{wanted.kind} cannot be used: {reason}") from None

    def _compile(self, kind: GrammarFormat, text: str) -> LLMatcher:
        # Without the lock: who finds a grammar in the cache does not wait for one that takes long.
        limits = LLParserLimits(verbose_errors=False, max_items_in_row=ITEMS_IN_ROW)
        matcher = LLMatcher(self._tokenizer, grammar_from(kind, text), log_level=0, limits=limits)
        trial = matcher.deep_copy()  # of the same lexer, which keeps what it finds out
        for _ in range(TRIED):
            allowed = np.frombuffer(trial.compute_logit_bias(), dtype=np.uint8).nonzero()[0]
            if trial.is_error():
                raise ValueError(trial.get_error())
            trial.try_consume_tokens(allowed[:1].tolist())
        return matcher

    def _keep(self, source: tuple[GrammarFormat, str], matcher: LLMatcher) -> LLMatcher:
        with self._lock:
            self._compiled[source] = matcher
            if len(self._compiled) > CACHED:
                del self._compiled[next(iter(self._compiled))]
        return matcher

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        if not isinstance(self._source, PreTrainedTokenizerFast):
            raise ValueError("they need a fast tokenizer, and this model's is a slow one")
        if not self._eos:
            raise ValueError("the model has no EOS token, which would end the output")
        return from_tokenizer(self._source, n_vocab=self._vocab, eos_token=self._eos)


class InGrammar:
    """An edit that leaves the tokens by which an output may go on. One for each sequence.

    What it does depends on the output alone. It remembers which output it saw last, because the next one
    mostly goes on from there, or from a little before where a draft fell.
    """

    def __init__(self, grammars: Grammars, wanted: StructuredOutputs) -> None:
        self._grammars, self._wanted = grammars, wanted
        self._begin()

    def apply(self, logits: Tensor, output: Sequence[int]) -> None:
        """No token is left after an output that has left the grammar, or that is too much for the library."""
        barred = self._barred(output)
        if self._matcher.is_error():  # perhaps for what it, or a copy, was asked before
            self._begin(anew=True)
            barred = self._barred(output)
        if barred is None or self._matcher.is_error():
            logits.fill_(-torch.inf)
        else:
            logits.masked_fill_(barred.to(logits.device), -torch.inf)

    def count(self, output: Sequence[int], tokens: Sequence[int]) -> int:
        """How many of `tokens` may follow `output`, one after the other."""
        return self._matcher.validate_tokens(list(tokens)) if self._read_up_to(output) else 0

    def forced(self, output: Sequence[int]) -> tuple[int, ...]:
        """What has to follow `output`, in the tokens that the tokenizer would make of it. Others may spell it
        as well, so the target has to be asked."""
        return tuple(self._matcher.compute_ff_tokens()) if self._read_up_to(output) else ()

    def _begin(self, *, anew: bool = False) -> None:
        self._matcher = self._grammars.compile(self._wanted, anew=anew).deep_copy()
        self._read: list[int] = []

    def _barred(self, output: Sequence[int]) -> Tensor | None:
        """Which tokens may not follow `output`, bool [vocab]; None where none may."""
        if not self._read_up_to(output):
            return None
        return torch.from_numpy(np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8) == 0)

    def _read_up_to(self, output: Sequence[int]) -> bool:
        if self._matcher.is_error():  # which it does not get over, and where it allows EOS
            self._begin(anew=True)
        common = _common(self._read, output)
        self._matcher.rollback(len(self._read) - common)
        new = list(output[common:])
        taken = self._matcher.try_consume_tokens(new)
        self._read = [*self._read[:common], *new[:taken]]
        return taken == len(new)


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """How long the same beginning is."""
    if list(other[: len(one)]) == list(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))


def _source(wanted: StructuredOutputs) -> tuple[GrammarFormat, str]:
    """The kind of a grammar and its text, as the library takes them."""
    if wanted.json_object:
        return "json_schema", '{"type": "object"}'
    if wanted.json_schema is not None:
        schema = wanted.json_schema
        return "json_schema", schema if isinstance(schema, str) else json.dumps(schema)
    if wanted.choice is not None:
        return "choice", json.dumps(wanted.choice)
    if wanted.regex is not None:
        return "regex", wanted.regex
    return "grammar", wanted.grammar or ""
