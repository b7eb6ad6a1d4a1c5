"""Who is told what an engine does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outrider.outputs import Increment, RequestOutput

if TYPE_CHECKING:
    from outrider.engine.scheduler import Schedule
    from outrider.engine.seam import StepEngine
    from outrider.engine.verify import Judged


class Watcher:
    """Counts or records what an engine does: subclass it for those events that matter.

    It is called in the thread that has the engine, so it should be quick. A fault in it is logged, and stops
    nothing. It changes nothing: who changed an engine would change what its requests return.
    """

    def scheduled(self, schedule: Schedule) -> None:
        """A step will compute this: its blocks are reserved, and nothing is drafted yet."""

    def verified(self, judged: Sequence[Judged]) -> None:
        """The pass and its verdicts are there, one for each request, and nothing is committed yet."""

    def embedding(self) -> None:
        """A text is embedded next, between two steps."""

    def stepped(self, engine: StepEngine, increments: Sequence[Increment]) -> None:
        """A step has ended, and who finished in it has been released; `engine.report` is of it."""

    def finished(self, output: RequestOutput) -> None:
        """A request has ended or was given up, and its output was taken."""
