"""What the weight formats and the rounding of activations cost in quality: perplexity of SmolLM2.

python -m benchmarks.perplexity [--json] [--tokens 4096] [--text FILE] [--model FILE] [--formats [NAME ...]]
python -m benchmarks.perplexity --caches [--json] [--tokens 4096] [--text FILE] [--model FILE]

The model is run as it is stored, and with the weights of its linear layers brought into every format that
there is, each twice: by the format's own kernel, which rounds activations to the weights' precision group by
group, and with the very same weights dequantised and everything computed in float32. "rounding" is what the
kernel loses against that, with its standard error over tokens; it should stay within 0.5 %. "format" is what
the format loses against the model as it is stored. The table of tokens, which is SmolLM2's output layer too,
has 8 bits beside GGUF's quantised formats and 16 beside those of safetensors, as quantisers leave it.
`--formats` without names leaves all but the first row out. `--caches` compares types of K and V in place of
formats,
for the model as it is stored, with those in float32: perplexity, and how far the distributions of the next
token are
from each other (Kullback-Leibler divergence, in nats, the mean over tokens). The text is the documentation
that comes with Python, or a file.
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
from outrider.ops.cpu.backend import STORED, NativeBackend
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
    return torch.cat(
        [
            F.cross_entropy(logits[:-1], torch.tensor(window[1:]), reduction="none")
            for window, logits in zip(windows, logits_of(model, backend, windows), strict=True)
        ]
    ).double()


def logits_of(model: str, backend: NativeBackend, windows: Sequence[Sequence[int]]) -> Iterator[Tensor]:
    """Logits [tokens, vocab] of each window."""
    target = Model(open_checkpoint(model), backend)
    runner = ModelRunner(target, num_blocks=WINDOW // BLOCK, block_size=BLOCK, prefix_caching=False)
    blocks = runner.table()
    blocks.extend(WINDOW)
    for window in windows:
        yield torch.from_numpy(runner.forward([Span(window, 0, blocks.tables, len(window))]))


@dataclass(frozen=True)
class CacheQuality:
    """What a type of K and V costs: perplexity, that over float32's, its standard error, and the divergence
    from it."""

    cache: str
    perplexity: float
    ratio: float
    error: float
    divergence: float


def measure_caches(model: str, windows: Sequence[Sequence[int]]) -> Iterator[CacheQuality]:
    """The quality of each type that native kernels have."""
    backends = {name: NativeBackend(cache_dtype=name) for name in STORED}
    losses: dict[str, list[Tensor]] = {name: [] for name in backends}
    apart: dict[str, list[Tensor]] = {name: [] for name in backends}
    streams = {name: logits_of(model, backend, windows) for name, backend in backends.items()}
    for window, *rows in zip(windows, *streams.values(), strict=True):
        scores = [logits.double().log_softmax(dim=-1) for logits in rows]
        for name, own in zip(backends, scores, strict=True):
            losses[name].append(-own[:-1].gather(1, torch.tensor(window[1:])[:, None])[:, 0])
            apart[name].append((scores[0].exp() * (scores[0] - own)).sum(dim=-1))
    exact = torch.cat(losses["float32"])
    for name in backends:
        own = torch.cat(losses[name])
        error = float((own - exact).std()) / math.sqrt(len(own))
        ratio = math.exp(own.mean() - exact.mean())
        yield CacheQuality(name, math.exp(own.mean()), ratio, error, float(torch.cat(apart[name]).mean()))


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
    parser.add_argument("--caches", action="store_true", help="compare types of K and V in place of formats")
    args = parser.parse_args()
    text = args.text.read_text() if args.text else "\n\n".join(topics.values())
    windows = text_windows(args.model, text, args.tokens)
    if args.caches:
        _tell_of_caches(list(measure_caches(args.model, windows)), as_json=args.json)
        return
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


def _tell_of_caches(found: Sequence[CacheQuality], *, as_json: bool) -> None:
    if as_json:
        json.dump([asdict(one) for one in found], sys.stdout, indent=2)
        sys.stdout.write("\n")
        return
    sys.stdout.write(f"{'cache':9} {'perplexity':>10} {'change':>8} {'+-':>6} {'divergence':>10}\n")
    for one in found:
        change = f"{one.ratio - 1:+8.2%} {one.error:6.2%}"
        sys.stdout.write(f"{one.cache:9} {one.perplexity:10.3f} {change} {one.divergence:10.1e}\n")


if __name__ == "__main__":
    main()
