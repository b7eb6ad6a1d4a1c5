"""What is set of draft lengths beforehand, by kind of work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bounds:
    """least, most: tokens of a draft; acceptance: what is expected of a token before anything is known."""

    least: int
    most: int
    acceptance: float


WORKLOADS = {
    None: Bounds(0, 16, 0.65),
    "structured": Bounds(5, 8, 0.85),
    "creative": Bounds(2, 4, 0.5),
}
