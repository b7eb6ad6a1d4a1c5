"""The training process, as the server sees it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from multiprocessing import Pipe
from pathlib import Path
from typing import Any

from outrider.adapting.messages import Ready, Refusal, Setup
from outrider.errors import ConfigError

MAIN = "import sys; from outrider.adapting.process import main; main(int(sys.argv[1]))"


class TrainingProcess:
    """A process that trains a head, and that can be held at any moment.

    It never outlives the server. It ends when its pipe is closed; where it is held while the server is
    killed, the system ends it, since it is a process group of its own that nobody could wake (POSIX: an
    orphaned process group with stopped members gets SIGHUP).

    Raises ConfigError where the head cannot be trained.
    """

    def __init__(self, setup: Setup) -> None:
        self._channel, theirs = Pipe()
        with theirs:
            path = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path if folder)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", MAIN, str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
                env=os.environ | {"PYTHONPATH": path},
            )
        self._end = weakref.finalize(self, _end, self._process, os.getpid())
        self._held = False
        self.send(setup)
        try:
            answer = self.receive()
        except (EOFError, OSError):
            answer = Refusal(f"the training process {self.why_it_ended()} before it began")
        if not isinstance(answer, Ready):
            self.close()
            raise ConfigError(f"--adapt: {answer.reason}")

    @property
    def id(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> None:
        """Waits while the process is held, or busy. Raises OSError once it has ended."""
        self._channel.send(message)

    def receive(self) -> Any:
        """The next message. Raises EOFError or OSError once the process has ended."""
        return self._channel.recv()

    def hold(self) -> None:
        """Take all processor time from it, at once."""
        if not self._held:
            self._held = True
            self._process.send_signal(signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        if self._held:
            self._held = False
            self._process.send_signal(signal.SIGCONT)

    def why_it_ended(self) -> str:
        """The end of a sentence about a process whose pipe is closed."""
        try:
            status = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "does not answer"
        if status >= 0:
            return f"ended with status {status}"
        by = "was ended by signal"
        return f"{by} {-status} ({signal.Signals(-status).name})"

    def close(self) -> None:
        """End it, held or not: whoever waits for the pipe is told by that."""
        self._end()


def _end(process: subprocess.Popen[bytes], parent: int) -> None:
    if parent == os.getpid():
        process.kill()
        process.wait()
