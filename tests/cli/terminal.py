"""Commands in a pseudo-terminal, as a user has them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.cells import cell_len

CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[()][A-Z0-9]|[=>78])")
PATIENCE = 60.0  # seconds, which a busy machine may take


class Terminal:
    """`outrider` with a terminal for its input and output."""

    def __init__(self, *arguments: str, columns: int = 80, env: Mapping[str, str] | None = None) -> None:
        self.columns = columns
        self._master, child = pty.openpty()
        fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "outrider", *arguments],
            stdin=child,
            stdout=child,
            stderr=child,
            start_new_session=True,
            preexec_fn=_own_terminal,
            env={**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", **(env or {})},
        )
        os.close(child)
        self._bytes = b""
        self._seen = 0

    @property
    def text(self) -> str:
        """All that was written, without colours and what moves the cursor."""
        return CONTROL.sub("", self._bytes.decode(errors="replace"))

    @property
    def lines(self) -> list[str]:
        """What was left in each line; of what was overwritten, the last."""
        whole = self.text.replace("\r\n", "\n").split("\n")
        return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in whole]

    @property
    def widest(self) -> int:
        """Columns of the widest line."""
        return max(cell_len(part) for line in self.text.split("\n") for part in line.split("\r"))

    def wait_for(self, words: str) -> str:
        """What is written from the last such call on, up to and with the words."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.text.find(words, self._seen)) < 0:
            alive = self._read(deadline)
            assert alive, f"{words!r} did not come: {self.text[self._seen :]!r}"
        said = self.text[self._seen : at + len(words)]
        self._seen = at + len(words)
        return said

    def send(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press_ctrl_c(self) -> None:
        self.send("\x03")

    def interrupt(self, words: str) -> str:
        """As `wait_for`, at a prompt: Ctrl-C is pressed until the words come.

        Python's own `input` writes its prompt before it looks for keys. A Ctrl-C that comes in between is
        noticed at the next key.
        """
        deadline = time.monotonic() + PATIENCE
        while words not in self.text[self._seen :] and time.monotonic() < deadline:
            self.press_ctrl_c()
            while select.select([self._master], [], [], 1.0)[0] and words not in self.text[self._seen :]:
                assert self._read(deadline), f"{words!r} did not come: {self.text[self._seen :]!r}"
        return self.wait_for(words)

    def wait(self) -> int:
        """The exit status, once the command has ended."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self._process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        """More of what is written; False once the command has ended."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came in {PATIENCE} s: {self.text!r}"
        try:
            more = os.read(self._master, 1 << 16)
        except OSError:  # Linux says so at the end
            return False
        self._bytes += more
        return bool(more)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        os.close(self._master)


def _own_terminal() -> None:
    """Make it the one that Ctrl-C comes from."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run_in_terminal(*arguments: str, status: int = 0, columns: int = 80) -> Terminal:
    """A command that has ended."""
    with Terminal(*arguments, columns=columns) as terminal:
        assert terminal.wait() == status, terminal.text
    return terminal
