"""What the weight formats and the rounding of activations cost in quality: perplexity of SmolLM2.

python -m benchmarks.perplexity [--json] [--tokens 4096] [--text FILE] [--model FILE] [--formats [NAME ...]]

The model is run as it is stored, and with the weights of its linear layers brought into every format that
there is, each twice: by the format's own kernel, which rounds activations to the weights' precision group by
group, and with the very same weights dequantised and everything computed in float32. "rounding" is what the
kernel loses against that, with its standard error over tokens; it should stay within 0.5 %. "format" is what
the format loses against the model as it is stored. The table of tokens, which is SmolLM2's output layer too,
has 8 bits beside GGUF's quantised formats and 16 beside those of safetensors, as quantisers leave it.
`--formats` without names leaves all but the first row out. The text is the documentation that comes with
Python, or a file.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType
from torch import Tensor

from benchmarks.encoders import encoders
from outrider.formats.convert import convert
from outrider.formats.format import Floats, Format
from outrider.formats.quantization import QUANTIZED
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.ops.cpu.backend import NativeBackend
from outrider.ops.span import Span

WINDOW = 512  # tokens, of which the first predicts only
BLOCK = 16
MOST = 0.005
"""What a kernel may lose against the same weights in float32."""


@dataclass(frozen=True)
class Case:
    """What the weights of linear layers and of the table of tokens are turned into; None: they are left."""

    name: str
    linear: Format | None = None
    table: Format | None = None


@dataclass(frozen=True)
class Quality:
    """Perplexities: by the format's kernel, and of the same weights in float32. error: of the logarithm of
    their ratio."""

    format: str
    kernel: float
    float32: float
    error: float

    @property
    def of_rounding(self) -> float:
        return self.kernel / self.float32


def cases(names: Sequence[str] | None) -> Iterator[Case]:
    """names: of formats; None: all, and what `quantization=` makes."""
    yield Case("as stored")
    for name, format in encoders().items():
        if names is None or name in names:
            in_gguf = name in GGMLQuantizationType.__members__
            table = format if format.is_float else FORMATS["Q8_0" if in_gguf else "BF16"]
            yield Case(name, format, table)
    for name, pair in QUANTIZED.items() if names is None else ():
        yield Case(f"own {name}", pair.linear, pair.table)


class Exact(NativeBackend):
    """The weights of a case, in float32."""

    def __init__(self, case: Case) -> None:
        super().__init__(FORMATS["F32"], FORMATS["F32"], cache_dtype="float32")
        self._case = case

    def pack(
        self, weights: Sequence[Weight], bias: Floats | None = None, *, float32: bool = False
    ) -> tuple[Any, ...]:
        rounded = weights if float32 else [_rounded(weight, self._case.linear) for weight in weights]
        return super().pack(rounded, bias, float32=float32)

    def stack(self, weights: Sequence[Weight], bias: Floats | None = None) -> Any:
        return super().stack([_rounded(weight, self._case.linear) for weight in weights], bias)

    def table(self, weight: Weight) -> Any:
        return super().table(_rounded(weight, self._case.table))


def _rounded(weight: Weight, format: Format | None) -> Weight:
    return weight if format is None else convert(weight, format)


def losses(model: str, backend: NativeBackend, windows: Sequence[Sequence[int]]) -> Tensor:
    """Negative log-likelihoods of all tokens but each window's first."""
    target = Model(open_checkpoint(model), backend)
    runner = ModelRunner(target, num_blocks=WINDOW // BLOCK, block_size=BLOCK, prefix_caching=False)
    blocks = runner.table()
    blocks.extend(WINDOW)
    found = []
    for window in windows:
        logits = runner.forward([Span(window, 0, blocks.tables, len(window))])
        found.append(
            F.cross_entropy(torch.from_numpy(logits[:-1]), torch.tensor(window[1:]), reduction="none")
        )
    return torch.cat(found).double()


def text_windows(model: str, text: str, tokens: int) -> list[list[int]]:
    ids = open_checkpoint(model).tokenizer().encode(text, add_special_tokens=False)[:tokens]
    return [ids[i : i + WINDOW] for i in range(0, len(ids) - 1, WINDOW)]


def measure(case: Case, model: str, windows: Sequence[Sequence[int]]) -> Quality:
    kernel = losses(model, NativeBackend(case.linear, case.table, cache_dtype="float32"), windows)
    float32 = losses(model, Exact(case), windows)
    error = float((kernel - float32).std()) / math.sqrt(len(kernel))
    return Quality(case.name, math.exp(kernel.mean()), math.exp(float32.mean()), error)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--text", type=Path, help="a text file")
    parser.add_argument("--model", default="smollm2", help="a GGUF file, or what `outrider generate` takes")
    parser.add_argument("--formats", nargs="*", choices=list(FORMATS), metavar="NAME")
    args = parser.parse_args()
    text = args.text.read_text() if args.text else "\n\n".join(topics.values())
    windows = text_windows(args.model, text, args.tokens)
    found: list[Quality] = []
    if not args.json:
        sys.stdout.write(
            f"{'format':11} {'kernel':>8} {'float32':>8} {'rounding':>9} {'+-':>6} {'format':>8}\n"
        )
    for case in cases(args.formats):
        quality = measure(case, args.model, windows)
        found.append(quality)
        if not args.json:
            of_format = f"{quality.float32 / found[0].float32 - 1:+8.2%}"
            over = "  over the bar" * (quality.of_rounding - 1 > MOST)
            rounding = f"{quality.of_rounding - 1:+9.2%} {quality.error:6.2%}"
            sys.stdout.write(
                f"{case.name:11} {quality.kernel:8.3f} {quality.float32:8.3f} {rounding} {of_format}{over}\n"
            )
            sys.stdout.flush()
    if args.json:
        base = found[0].float32
        results = [asdict(q) | {"of_rounding": q.of_rounding, "of_format": q.float32 / base} for q in found]
        json.dump({"tokens": sum(map(len, windows)), "results": results}, sys.stdout, indent=2)
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
