"""Medians over rounds, and ratios within rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.peers.measure import Measured, Result
from benchmarks.peers.registry import OWN


@dataclass(frozen=True)
class Row:
    """tokens_per_s: median over rounds. outrider_times: Outrider's rate over this one, median of ratios
    within rounds. bandwidth_share: of memory's, where plain decoding reads the file's weights once a token.
    gain: speculation over the engine's own plain decoding. same: prompts, of all, on which the tokens
    are those of Outrider's plain decoding.
    """

    engine: str
    measure: str
    tokens_per_s: float
    outrider_times: float
    bandwidth_share: float | None = None
    gain: float | None = None
    same: int | None = None

    @property
    def ms(self) -> float:
        """Milliseconds that a token takes."""
        return 1e3 / self.tokens_per_s


def rows(measured: Measured) -> list[Row]:
    found = {(result.engine, result.speculate): result for result in measured.results}
    reference = found[OWN, False].outputs

    def decode(result: Result) -> Row:
        plain = found.get((result.engine, False))
        return Row(
            result.engine,
            "speculation" if result.speculate else "decode",
            median(result.decode),
            _ratio(found[OWN, result.speculate].decode, result.decode),
            None if result.speculate else median(result.decode) * measured.token_bytes / measured.bandwidth,
            _ratio(result.decode, plain.decode) if plain and result.speculate else None,
            sum(a == b for a, b in zip(result.outputs, reference, strict=True)),
        )

    prompts = [result for result in measured.results if not result.speculate]
    return [
        *(decode(result) for result in prompts),
        *(decode(result) for result in measured.results if result.speculate),
        *(
            Row(
                result.engine,
                "prompt",
                median(result.prompt),
                _ratio(found[OWN, False].prompt, result.prompt),
            )
            for result in prompts
        ),
        *(
            Row(result.engine, f"clients {n}", median(rates), _ratio(found[OWN, False].clients[n], rates))
            for n in found[OWN, False].clients
            for result in prompts
            if (rates := result.clients.get(n))
        ),
    ]


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def table(format: str, measured: Measured, prompts: int) -> str:
    lines = [
        f"{format}: memory read at {measured.bandwidth / 1e9:.1f} GB/s; a token reads "
        f"{measured.token_bytes / 1e9:.3f} GB of weights; cores busy with anything else "
        f"{measured.foreign_load:.2f}",
        f"  {'':12} {'engine':14} {'tokens/s':>8} {'ms':>7} {'bandwidth':>9} {'outrider is':>11} "
        f"{'own gain':>8} {'same':>6}",
    ]
    for row in rows(measured):
        gain = "" if row.gain is None else f"{row.gain:.2f}x"
        same = "" if row.same is None else f"{row.same}/{prompts}"
        share = "" if row.bandwidth_share is None else f"{row.bandwidth_share:.0%}"
        lines.append(
            f"  {row.measure:12} {row.engine:14} {row.tokens_per_s:8.1f} {row.ms:7.2f} {share:>9} "
            f"{row.outrider_times:10.2f}x {gain:>8} {same:>6}"
        )
    for skip in measured.skipped:
        mode = "speculation" if skip.speculate else "plain"
        lines.append(f"  skipped: {skip.engine}, {mode}: {skip.reason}")
    return "\n".join(lines) + "\n"
