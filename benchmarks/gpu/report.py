"""What a run found, on disk from the first finding on, and how a run keeps within its time."""

from __future__ import annotations

import gc
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Finding = tuple[str, Any]
"""A name within its part, and what was found, as JSON has it."""
LINES = 6  # of a traceback


class Absent(Exception):
    """What a part measures is not there."""


@dataclass(frozen=True)
class Part:
    """A part of a run. weight: its share of what time is left, beside the parts behind it; measure: yields
    what it finds as it finds it, and may be left after any."""

    name: str
    weight: float
    measure: Callable[[], Iterator[Finding]]


@dataclass
class Report:
    """One device's findings. about: the device and the versions; parts: by name, with their `state`, which is
    'done', 'stopped' for want of time, 'failed', or 'absent'."""

    path: Path
    about: Mapping[str, Any]
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path, about: Mapping[str, Any]) -> Report:
        """The one that is there, if it is of the same device and versions, to be gone on with."""
        there = read(path)
        return cls(path, about, there["parts"] if there.get("about") == about else {})

    def lacks(self, name: str) -> bool:
        """Whether a part was not measured, or was not there to be."""
        return name not in self.parts or self.parts[name]["state"] == "absent"

    def write(self) -> None:
        """The file is whole at any time."""
        partial = self.path.with_suffix(".partial")
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps({"about": self.about, "parts": self.parts}, indent=1) + "\n")
        partial.replace(self.path)

    def measure(self, part: Part, deadline: float, clock: Callable[[], float]) -> None:
        """Run a part until it ends, fails, or is found to be late. deadline: of `clock`."""
        began = clock()
        found: dict[str, Any] = {}
        entry: dict[str, Any] = {"state": "stopped", "found": found}  # as it stays if the process is ended
        self.parts[part.name] = entry
        try:
            for name, value in part.measure():
                found[name] = value
                entry["seconds"] = round(clock() - began, 1)
                self.write()
                if clock() > deadline:
                    break
            else:
                entry["state"] = "done"
        except Absent as reason:
            entry |= {"state": "absent", "error": str(reason)}
        except Exception as error:
            trace = traceback.format_tb(error.__traceback__)[-LINES:]
            entry |= {"state": "failed", "error": f"{type(error).__name__}: {error}", "trace": trace}
        entry["seconds"] = round(clock() - began, 1)
        self.write()


def read(path: Path) -> dict[str, Any]:
    """A report; empty where there is none."""
    if not path.exists():
        return {}
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def measure_all(
    report: Report,
    parts: Sequence[Part],
    seconds: float,
    *,
    tell: Callable[[str], object],
    after: Callable[[Sequence[Part], float], object],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run the parts one after the other within so many seconds. What one leaves of its share is the others'.

    tell: of each part as it is done; after: is called with the parts that remain and their seconds, if any.
    """
    end = clock() + seconds
    for number, part in enumerate(parts):
        left = end - clock()
        if left <= 0:
            break
        share = part.weight / sum(one.weight for one in parts[number:])
        report.measure(part, clock() + share * left, clock)
        gc.collect()
        entry = report.parts[part.name]
        tell(f"{part.name}: {entry['state']} in {entry['seconds']} s {entry.get('error', '')}".rstrip())
        if (remaining := parts[number + 1 :]) and (left := end - clock()) > 0:
            after(remaining, left)
