"""What the weight formats and the rounding of activations cost in quality: perplexity of SmolLM2.

python -m benchmarks.perplexity [--json] [--tokens 4096] [--text FILE] [--cache DIR]

Each format is run twice: by its own kernel, which rounds activations to the weights' precision group by
group, and with the same weights dequantised and everything computed in float32. The first ratio is what the
kernel's rounding costs, the second what the format costs against the bfloat16 model, which is itself the
original's Q4_1 dequantised. The text is the documentation that comes with Python, or a file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
import torch.nn.functional as F

from benchmarks.variants import cache_folder, smollm2
from outrider.formats.convert import convert
from outrider.formats.format import Format
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.batch import Span
from outrider.ops.cpu.backend import Formats, NativeBackend

WINDOW = 512  # tokens, of which the first predicts only
BLOCK = 16

Convert = Callable[[Weight], Weight]


def as_stored(weight: Weight) -> Weight:
    return weight


def to(format: Format) -> Convert:
    return lambda weight: convert(weight, format)


@dataclass(frozen=True)
class Case:
    """A file, and what its weights are turned into: those of linear layers, and the table of tokens."""

    kind: str
    linear: Convert = as_stored
    table: Convert = as_stored


CASES = {
    "bf16": Case("BF16"),
    "int8 (Q8_0)": Case("Q8_0"),
    "int8 own": Case("BF16", to(FORMATS["Q8_CHANNEL"]), to(FORMATS["Q8_CHANNEL"])),
    "int4 (Q4_0)": Case("Q4_0"),
    "int4 (Q4_1)": Case("Q4_1"),
    "int4 own": Case("BF16", to(FORMATS["Q4_0"]), to(FORMATS["Q8_CHANNEL"])),
}


@dataclass(frozen=True)
class Quality:
    """Perplexities: by the format's kernel, and of the same weights in float32."""

    format: str
    kernel: float
    float32: float

    @property
    def of_rounding(self) -> float:
        return self.kernel / self.float32


def perplexity(path: Path, linear: Convert, table: Convert, windows: Sequence[Sequence[int]]) -> float:
    """exp of the mean negative log-likelihood of all tokens but each window's first. K and V are float32."""
    backend = NativeBackend(Formats(linear, table), cache_dtype=torch.float32)
    model = Model(open_checkpoint(str(path)), backend)
    runner = ModelRunner(model, num_blocks=WINDOW // BLOCK, block_size=BLOCK, prefix_caching=False)
    blocks = runner.table()
    blocks.extend(WINDOW)
    total, count = 0.0, 0
    for window in windows:
        logits = runner.forward([Span(window, 0, blocks.tables, len(window))])
        total += float(F.cross_entropy(logits[:-1], torch.tensor(window[1:]), reduction="sum"))
        count += len(window) - 1
    return float(torch.tensor(total / count).exp())


def text_windows(model: str, text: str, tokens: int) -> list[list[int]]:
    ids = open_checkpoint(model).tokenizer().encode(text, add_special_tokens=False)[:tokens]
    return [ids[i : i + WINDOW] for i in range(0, len(ids) - 1, WINDOW)]


def measure(name: str, path: Path, case: Case, windows: Sequence[Sequence[int]]) -> Quality:
    def exact(convert_first: Convert) -> Convert:
        return lambda weight: convert(convert_first(weight), FORMATS["F32"])

    return Quality(
        name,
        perplexity(path, case.linear, case.table, windows),
        perplexity(path, exact(case.linear), exact(case.table), windows),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--text", type=Path, help="a text file")
    parser.add_argument("--model", type=Path, help="a file as it is stored, in place of SmolLM2's formats")
    parser.add_argument("--cache", type=Path, help="folder that keeps the model's variants")
    args = parser.parse_args()
    text = args.text.read_text() if args.text else "\n\n".join(topics.values())
    windows = text_windows(str(args.model or "smollm2"), text, args.tokens)
    if args.model:
        found = [measure("as stored", args.model, Case(""), windows)]
    else:
        with cache_folder(args.cache) as folder:
            found = [measure(n, smollm2(case.kind, folder), case, windows) for n, case in CASES.items()]
    base = found[0].float32
    if args.json:
        results = [asdict(q) | {"of_rounding": q.of_rounding, "of_format": q.float32 / base} for q in found]
        json.dump({"tokens": sum(map(len, windows)), "results": results}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    sys.stdout.write(f"{'format':13} {'kernel':>8} {'float32':>8} {'rounding':>9} {'format':>8}\n")
    for q in found:
        losses = f"{q.of_rounding - 1:+9.2%} {q.float32 / base - 1:+8.2%}"
        sys.stdout.write(f"{q.format:13} {q.kernel:8.3f} {q.float32:8.3f} {losses}\n")


if __name__ == "__main__":
    main()
