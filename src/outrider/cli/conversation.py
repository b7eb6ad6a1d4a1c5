"""A conversation with a model, and the commands that change it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from outrider.errors import ConfigError
from outrider.messages import shown
from outrider.outputs import Increment, SpeculationStats
from outrider.params import SamplingParams
from outrider.validation import refuse_unknown

if TYPE_CHECKING:
    from outrider.llm import LLM

SETTABLE = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "max_tokens",
    "min_tokens",
    "stop",
    "seed",
    "num_speculative_tokens",
)
UNSET = {"num_speculative_tokens": "auto", "max_tokens": "what the context holds"}
HELP = """\
/set NAME VALUE   change a parameter of the answers; /set alone shows all
/system TEXT      begin anew with this system message; /system alone drops it
/clear            begin anew
/save FILE        write the conversation: Markdown, or JSON if FILE ends in .json
/help             show this
/quit             leave, as Ctrl-D does
Ctrl-C stops an answer; what was said of it stays in the conversation."""
QUIT = ("/quit", "/exit", "/bye")
COMMANDS = ("/set", "/system", "/clear", "/save", "/help", *QUIT)


@dataclass(frozen=True)
class Reply:
    """An answer, and what it took. Times are seconds from the question on, of the first and of the last step;
    first_tokens: of the first step."""

    text: str = ""
    tokens: int = 0
    drafts: SpeculationStats = field(default_factory=SpeculationStats)
    first: float = 0.0
    last: float = 0.0
    first_tokens: int = 0

    def grown(self, increment: Increment, now: float) -> Reply:
        """With what a step added."""
        added = len(increment.token_ids)
        return Reply(
            self.text + increment.text,
            self.tokens + added,
            self.drafts + SpeculationStats.of_draft(increment.drafted, increment.accepted),
            self.first if self.tokens else now,
            now,
            self.first_tokens if self.tokens else added,
        )

    @property
    def summary(self) -> str:
        """One line: tokens, tokens a second after the first step, and the share that was drafted."""
        parts = ["1 token" if self.tokens == 1 else f"{self.tokens} tokens"]
        if self.last > self.first:
            parts.append(f"{(self.tokens - self.first_tokens) / (self.last - self.first):.1f} tokens/s")
        if self.tokens:
            parts.append(f"{self.drafts.accepted / self.tokens:.0%} drafted")
            parts.append(f"first after {self.first:.2f} s")
        return ", ".join(parts)


class Talk:
    """What was said, and the parameters of the answers to come. clock: in seconds."""

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        system: str | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.messages: list[dict[str, str]] = []
        self._llm = llm
        self._params = params
        self._system = system
        self._clock = clock
        self._clear()

    def ask(self, question: str) -> Generator[Increment, None, None]:
        """Yield the answer, step by step.

        One that is left or interrupted stays as far as it was yielded. A question without a token of an
        answer is forgotten. Raises OutriderError for one that cannot be answered.
        """
        began = self._clock()
        self.answer = Reply()
        self.messages.append({"role": "user", "content": question})
        try:
            prompt = self._llm.chat_prompt(self.messages)
            with closing(self._llm.stream(prompt, self._params)) as increments:
                for increment in increments:
                    self.answer = self.answer.grown(increment, self._clock() - began)
                    yield increment
        except (GeneratorExit, KeyboardInterrupt):
            pass
        finally:
            if self.answer.tokens:
                self.messages.append({"role": "assistant", "content": self.answer.text})
            else:
                self.messages.pop()

    def obey(self, line: str) -> str:
        """Carry out a command, which begins with a slash, and return what there is to say of it.

        Raises OutriderError for what is no command, or cannot be done.
        """
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        match name:
            case "/set":
                return self._set(rest) if rest else self._settings()
            case "/system":
                self._system = rest or None
                self._clear()
                return "a new conversation" + (" with this system message" if rest else "")
            case "/clear":
                self._clear()
                return "a new conversation"
            case "/save":
                return self._save(rest)
            case "/help":
                return HELP
        raise ConfigError(f"{name} is no command; /help shows those that there are")

    def _clear(self) -> None:
        self.answer = Reply()
        system = [] if self._system is None else [{"role": "system", "content": self._system}]
        self.messages = list(system)

    def _settings(self) -> str:
        return "\n".join(map(self._setting, SETTABLE))

    def _setting(self, name: str) -> str:
        value = getattr(self._params, name)
        return f"{name} = {UNSET.get(name, 'none') if value is None else shown(value)}"

    def _set(self, rest: str) -> str:
        name, _, value = rest.partition(" ")
        refuse_unknown([name], SETTABLE, "/set")
        given = {each: getattr(self._params, each) for each in SETTABLE}
        self._params = SamplingParams(**given | {name: _value(name, value.strip())})
        return self._setting(name)

    def _save(self, name: str) -> str:
        if not name:
            raise ConfigError("/save needs the name of a file, as in /save talk.md")
        path = Path(name).expanduser()
        if path.suffix == ".json":
            text = json.dumps(self.messages, ensure_ascii=False, indent=2) + "\n"
        else:
            text = "\n".join(f"## {each['role']}\n\n{each['content']}\n" for each in self.messages)
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{name!r} cannot be written: {error.strerror}") from error
        return f"written: {path}"


def _value(name: str, text: str) -> Any:
    """A parameter's value: JSON, or a string as it is; 'auto' and 'none' leave it to the engine."""
    if not text:
        raise ConfigError(f"/set {name} needs a value, as in /set temperature 0.7")
    if text in ("auto", "none"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    return [str(value)] if name == "stop" and not isinstance(value, list) else value
