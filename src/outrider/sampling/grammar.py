"""Outputs that have to fit a grammar: which tokens may come next, through the library llguidance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cached_property
from threading import BoundedSemaphore, Event, Lock
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from outrider.aside import aside
from outrider.errors import RequestError
from outrider.models.tokenizer import Tokenizer
from outrider.ops.choice import Allow, Change
from outrider.params import StructuredOutputs
from outrider.sandbox.workers import Refused, Task, Workers, task_file

if TYPE_CHECKING:  # it is imported when a grammar is used
    from llguidance import GrammarFormat, LLMatcher, LLTokenizer

CACHED = 64  # compiled grammars
AT_ONCE = 2  # that are compiled
SPACING = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}
"""Where JSON may have spaces: one at most, behind commas and colons, where models write it. A schema's own
`x-guidance` may say otherwise. Left to itself the library takes blanks between any two parts and without a
bound, and a model that is unsure writes them up to `max_tokens`."""
LIMITS = (
    "max_items_in_row", "initial_lexer_fuel", "step_lexer_fuel", "step_max_items", "max_lexer_states",
    "max_grammar_size", "precompute_large_lexemes", "verbose_errors",
)  # fmt: skip


@dataclass(frozen=True)
class GrammarLimits:
    """What a grammar may take: to be compiled, in a process that can be killed, and in a step."""

    length: int = 1 << 20  # characters
    seconds: float = 2.0
    """The processor time to compile it: a schema of 2,000 fields takes 0.4 s, one of 8,000 takes 20. It is
    spent again beside the engine, which feels it."""
    memory: int = 512 << 20  # bytes to compile it
    tried: int = 2  # tokens, before it is used: one that is too much is seldom so from the first
    items_in_row: int = 100_000  # ways on that it may have at a place: as many as a long list of choices has
    items: int = 20_000
    """Ways on that are followed to find out which tokens are next. An ambiguous grammar takes 36 ms for so
    many, and 145 ms for as many as the library allows by itself."""
    lexer_states: int = 50_000  # up to 2 KB each, by the library's account
    lexer_fuel: int = 200_000  # work of the lexer for a token, in the library's unit, and its own default


@dataclass(eq=False)
class Grammar:
    """A grammar that has been compiled.

    definition: in the library's own form; matcher: at the beginning of an output. It is to be copied and not
    used: copies share a lexer, and one that runs into a limit of the library's fails all of them.
    """

    definition: str
    matcher: LLMatcher


class Grammars:
    """Compiles grammars for one model; the same one is compiled once. May be used from several threads.

    One that is new is tried first, in a process that can be killed: some take hours, or all memory.
    What the library needs to know of a tokenizer takes seconds to find out for a large vocabulary, and is
    found out at the first use.

    limits: of those that are compiled from now on.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab: int,
        eos: Sequence[int],
        limits: GrammarLimits = GrammarLimits(),
    ) -> None:
        self.limits = limits
        self._source = tokenizer
        self._vocab = vocab
        self.none = np.zeros(vocab, np.bool_)
        """Which tokens may come where none may."""
        self._eos = list(eos)
        self._compiled: dict[tuple[GrammarFormat, str], Grammar] = {}
        self._used: WeakValueDictionary[tuple[GrammarFormat, str], Grammar] = WeakValueDictionary()
        self._lock = Lock()
        self._renewing = BoundedSemaphore(AT_ONCE)
        self._workers = Workers(self._task, count=AT_ONCE)

    def compile(self, wanted: StructuredOutputs, given_up: Event | None = None) -> Grammar:
        """The grammar, compiled. It takes no time while someone holds on to the one that was returned before.

        Raises RequestError, and GivenUp soon after `given_up` is set.
        """
        try:
            source = source_of(wanted)
            with self._lock:
                found = self._used.get(source)
            return self._keep(source, self._compile(*source, given_up)) if found is None else found
        except (ValueError, TypeError, Refused) as error:
            reason = " ".join(str(error).split())
        except RecursionError:
            reason = "it is nested too deeply"
        raise RequestError(f"{wanted.name} cannot be used: {reason}")

    def renew(self, grammar: Grammar, spoilt: LLMatcher) -> Future[LLMatcher]:
        """A matcher whose lexer nobody shares, compiled aside. So is one for those who come, in place of the
        one that is spoilt."""

        def renewed() -> LLMatcher:
            with self._renewing:
                if grammar.matcher is spoilt:
                    grammar.matcher = self._matcher(grammar.definition)
                return self._matcher(grammar.definition)

        return aside(renewed)

    def _compile(self, kind: GrammarFormat, text: str, given_up: Event | None) -> Grammar:
        # Without the lock: who finds a grammar in the cache does not wait for one that takes long.
        if len(text) > self.limits.length:
            raise ValueError(f"it has {len(text)} characters, and {self.limits.length} are taken")
        _ = self._tokenizer  # what is wrong with it is said before a worker is started
        job = {"kind": kind, "text": text, "limits": self._librarys, "tokens": self.limits.tried}
        definition = self._workers.ask(job, given_up)
        return Grammar(definition, self._matcher(definition))

    def _matcher(self, definition: str) -> LLMatcher:
        from outrider.sandbox import grammar_task

        return grammar_task.matcher_of(self._tokenizer, definition, self._librarys)

    def _keep(self, source: tuple[GrammarFormat, str], grammar: Grammar) -> Grammar:
        with self._lock:
            self._compiled[source] = self._used[source] = grammar
            if len(self._compiled) > CACHED:
                del self._compiled[next(iter(self._compiled))]
        return grammar

    @property
    def _librarys(self) -> dict[str, Any]:
        """The limits by their names in the library, and those that are left as it has them."""
        from llguidance import LLParserLimits

        limits = LLParserLimits(
            verbose_errors=False,
            max_items_in_row=self.limits.items_in_row,
            step_max_items=self.limits.items,
            max_lexer_states=self.limits.lexer_states,
            step_lexer_fuel=self.limits.lexer_fuel,
        )
        return {name: getattr(limits, name) for name in LIMITS}

    @cached_property
    def _tokenizer(self) -> LLTokenizer:
        if not self._eos:
            raise ValueError("the model has no EOS token, which would end the output")
        from llguidance import LLTokenizer

        return LLTokenizer(**self._about_tokenizer())

    def _about_tokenizer(self) -> dict[str, Any]:
        return {"tokenizer": self._source.backend.to_str(), "n_vocab": self._vocab, "eos_token": self._eos}

    def _task(self) -> Task:
        return Task(
            task_file("grammar_task"), self._about_tokenizer(), self.limits.seconds, self.limits.memory
        )


@dataclass(frozen=True)
class _Row:
    """allowed: which tokens may follow `output`, bool [vocab]."""

    output: list[int]
    allowed: NDArray[np.bool_]


class InGrammar:
    """An edit that leaves the tokens by which an output may go on. One for each sequence.

    What it does depends on the output alone. It remembers which output it saw last, because the next one
    mostly goes on from there, or from a little before where a draft fell.

    Where a limit of the library's was met, perhaps by another one who shares the lexer, it takes a matcher
    of its own, which is compiled aside. Until that is there it is not `ready`. What that one cannot do either
    ends the output.
    """

    def __init__(self, grammars: Grammars, wanted: StructuredOutputs) -> None:
        self._grammars = grammars
        self._grammar = grammars.compile(wanted)
        self._origin = self._grammar.matcher
        self._renewal: Future[LLMatcher] | None = None
        self._prepared: _Row | None = None
        self._last: _Row | None = None
        self._begin(self._origin, alone=False)

    def prepare(self, output: Sequence[int]) -> bool:
        """Find out what may follow `output` and keep it until the next call. False where it is not ready."""
        self._prepared = self._row(output)
        return self._prepared is not None

    def ready(self, output: Sequence[int]) -> bool:
        """Whether it can say at once what may follow `output`."""
        return self._row(output) is not None

    def changes(self, output: Sequence[int]) -> tuple[Change, ...]:
        """No token is left after an output that has left the grammar, or that is too much for the library.

        Waits where it is not ready.
        """
        while (row := self._row(output)) is None:
            assert self._renewal is not None
            self._renewal.result()
        return (Allow(row.allowed),)

    def count(self, output: Sequence[int], tokens: Sequence[int]) -> int:
        """How many of `tokens` may follow `output`, one after the other."""
        self._alone = False
        return self._matcher.validate_tokens(list(tokens)) if self._read_up_to(output) else 0

    def forced(self, output: Sequence[int]) -> tuple[int, ...]:
        """What has to follow `output`, in the tokens that the tokenizer would make of it. Others may spell it
        as well, so the target has to be asked."""
        self._alone = False
        return tuple(self._matcher.compute_ff_tokens()) if self._read_up_to(output) else ()

    def _begin(self, matcher: LLMatcher, *, alone: bool) -> None:
        """alone: whether nobody shares the matcher's lexer, and it was asked nothing yet."""
        self._beginning, self._alone = matcher, alone
        self._matcher = matcher.deep_copy()
        self._read: list[int] = []

    def _row(self, output: Sequence[int]) -> _Row | None:
        """None where it is not ready."""
        if self._renewal is not None and self._renewal.done():
            self._begin(self._renewal.result(), alone=True)
            self._renewal = None
        for row in (self._prepared, self._last):
            if row is not None and row.output == output:
                return row
        if self._renewal is not None:
            return None
        allowed = self._allowed(output)
        if allowed is None and not self._alone and self._spoilt():
            self._renewal = self._grammars.renew(self._grammar, self._origin)
            return None
        self._alone = False
        self._last = _Row(list(output), self._grammars.none if allowed is None else allowed)
        return self._last

    def _allowed(self, output: Sequence[int]) -> NDArray[np.bool_] | None:
        """Which tokens may follow `output`, bool [vocab]; None where none may, or a limit was met."""
        if not self._read_up_to(output):
            return None
        bias = np.frombuffer(self._matcher.compute_logit_bias(), dtype=np.uint8)
        return None if self._matcher.is_error() else bias != 0

    def _spoilt(self) -> bool:
        """Whether a limit was met. A matcher may not tell that another one has met it, and take no token."""
        if not self._matcher.is_error():
            trial = self._beginning.deep_copy()
            trial.compute_logit_bias()
            return trial.is_error()
        return True

    def _read_up_to(self, output: Sequence[int]) -> bool:
        if self._matcher.is_error():  # which it does not get over, and where it allows EOS
            return False
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


def source_of(wanted: StructuredOutputs) -> tuple[GrammarFormat, str]:
    """The kind of a grammar and its text, as the library takes them."""
    if wanted.json_object:
        return "json_schema", _spaced({"type": "object"})
    if wanted.json_schema is not None:
        return "json_schema", _spaced(wanted.json_schema)
    if wanted.choice is not None:
        return "choice", json.dumps(wanted.choice)
    if wanted.regex is not None:
        return "regex", wanted.regex
    return "grammar", wanted.grammar or ""


def _spaced(schema: str | dict[str, Any]) -> str:
    """The text of a schema that says where there may be spaces. One that is no object is left as it is."""
    try:
        found = json.loads(schema) if isinstance(schema, str) else schema
    except (ValueError, RecursionError):
        found = None  # the library says what is wrong
    if not isinstance(found, dict):
        return str(schema)
    own = found.get("x-guidance")
    return json.dumps(
        {**found, "x-guidance": {**SPACING, **own} if isinstance(own, dict) else own or SPACING}
    )
