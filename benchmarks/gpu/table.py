"""A report as it stands in docs/performance.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

NOTHING = (
    "Not yet measured: no GPU was at hand. `python -m benchmarks.gpu` measures one, see "
    "[GPUs](gpu.md#measuring-a-card).\n"
)
LARGE = ("8B bfloat16", "8B 4 bits")
Found = Mapping[str, Any]


def render(report: Found) -> str:
    """Markdown. Of a report that is empty, or was made in the interpreter: that there is none."""
    if report.get("about", {}).get("toy", True):
        return NOTHING
    parts = {name: entry["found"] for name, entry in report["parts"].items()}
    bandwidth = max(parts.get("bandwidth", {}).values(), default=0.0)
    sections = [
        _heading(report["about"], bandwidth),
        *_equality(parts),
        *_large(parts, bandwidth),
        *_models(parts),
        *_missing(report["parts"]),
    ]
    return "\n".join(sections)


def _heading(about: Found, bandwidth: float) -> str:
    return (
        f"{about['name']} (driver {about['driver']}, PyTorch {about['torch']}, Triton {about['triton']}), "
        f"whose memory was read at {bandwidth / 1e9:.0f} GB/s: `python -m benchmarks.gpu`.\n"
    )


def _equality(parts: Found) -> Iterator[str]:
    rows = parts.get("rows", {})
    if rows:
        differing = [name for name, found in rows.items() if found["differing"]]
        of = max(found["counts"] for found in rows.values())
        result = f"not those of {', '.join(differing)}" if differing else "all"
        yield f"Rows with the same bits in passes of 1 to {of} rows, in {len(rows)} formats: {result}.\n"
    cases = parts.get("verify", {})
    if cases:
        equal = sum(case["outcome"] == "equal" for case in cases.values())
        yield f"`outrider verify` on SmolLM2 with its head: {equal} of {len(cases)} settings equal.\n"


def _large(parts: Found, bandwidth: float) -> Iterator[str]:
    """A column a weight format."""
    models = [parts[name] for name in LARGE if parts.get(name)]
    if not models:
        return
    lines = [["8B shape, random weights", *(found["weights"] for found in models)]]
    for rows in ("8", "32"):
        lines.append([f"v({rows})", *(_v(found, rows) for found in models)])
    lines.append(["a pass of one row, share of bandwidth", *(_share(found, bandwidth) for found in models)])
    batches = [key for key in models[0] if key.startswith("batch")]
    for batch in batches:
        cells = [found.get(batch, {}) for found in models]
        lines.append([f"{batch}, tokens/s alone", *(_number(cell.get("plain")) for cell in cells)])
        speedups = (_ratio(cell.get("auto"), cell.get("plain")) for cell in cells)
        lines.append([f"{batch}, with drafts of which 0.7 are right, over alone", *speedups])
    yield _table(lines)


def _models(parts: Found) -> Iterator[str]:
    for batch, found in parts.get("SmolLM2", {}).items():
        alone, drafted = found["target_only"]["tokens_per_s"], found["speculative"]["tokens_per_s"]
        yield (
            f"SmolLM2 with its head, {batch}: {alone:.0f} tokens/s alone, {drafted:.0f} with drafts "
            f"({found['speedup']:.2f}), {found['identical']} of {found['compared']} outputs identical.\n"
        )
    small = parts.get("beside transformers", {})
    alone = parts.get("8B bfloat16", {}).get("batch 1", {}).get("plain")
    large = {"outrider": alone} | parts.get("8B beside transformers", {})
    if small or len(large) > 1:
        cells = (
            [name, _number(small.get(name)), _number(large.get(name))]
            for name in dict.fromkeys([*small, *large])
        )
        yield _table([["one request, bfloat16, tokens/s", "SmolLM2", "8B shape"], *cells])


def _missing(parts: Found) -> Iterator[str]:
    for name, entry in parts.items():
        if entry["state"] != "done":
            yield f"{name}: {entry['state']}{': ' + entry['error'] if 'error' in entry else ''}.\n"


def _v(found: Found, rows: str) -> str:
    taken = found.get("pass", {})
    return _ratio(taken.get(rows), taken.get("1"))


def _share(found: Found, bandwidth: float) -> str:
    one = found.get("pass", {}).get("1")
    return f"{found['bytes'] / (one / 1e3) / bandwidth:.0%}" if one and bandwidth else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0f}"


def _ratio(value: float | None, over: float | None) -> str:
    return f"{value / over:.2f}" if value and over else ""


def _table(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = lines
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, rule, *rest))
