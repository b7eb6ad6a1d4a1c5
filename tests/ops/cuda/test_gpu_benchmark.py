"""`python -m benchmarks.gpu` at toy size: all parts, what stands in the file at any time, and its table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from benchmarks.gpu.__main__ import MARKS, PAGE, RUN, main
from benchmarks.gpu.drawn import drawn
from benchmarks.gpu.report import Absent, Finding, Part, Report, measure_all, read
from benchmarks.gpu.table import NOTHING, render
from benchmarks.marks import placed
from benchmarks.random_models import SPREAD
from outrider.formats.registry import FORMATS
from outrider.formats.weight import Weight
from outrider.models.checkpoint import open_checkpoint
from outrider.ops.cuda.formats import GPU_FORMATS
from tests.factories import tiny_config, tiny_tokenizer, write_model
from tests.models.head_features import random_head
from tests.ops.cuda import ON_GPU

pytestmark = pytest.mark.skipif(ON_GPU, reason="there the script is run itself, and takes its minutes")


@pytest.mark.timeout(600)  # of a busy machine; it takes half a minute of a processor
def test_the_whole_script(tmp_path: Path) -> None:
    """With a model whose prompts are a few tokens."""
    target, head, file = tmp_path / "target", tmp_path / "head", tmp_path / "gpu.json"
    terse = tiny_tokenizer()
    terse.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    write_model(target, tiny_config(num_attention_heads=2, num_key_value_heads=1), tokenizer=terse)
    random_head(head, open_checkpoint(str(target)).config)
    main(["--minutes", "30", "--json", str(file), "--model", str(target), "--drafter", str(head)])
    report = read(file)
    assert report["about"]["toy"]
    errors = {name: part["error"] for name, part in report["parts"].items() if "error" in part}
    assert not errors
    found = {name: part["found"] for name, part in report["parts"].items()}
    assert list(found) == [
        "bandwidth", "rows", "verify", "8B bfloat16", "8B 4 bits", "layers", "SmolLM2", "beside transformers",
        "8B beside transformers",
    ]  # fmt: skip
    assert all(part["differing"] == [] for part in found["rows"].values())
    assert {case["outcome"] for case in found["verify"].values()} == {"equal"}
    assert sum(case["drafted"] for case in found["verify"].values()) > 0
    for name in ("8B bfloat16", "8B 4 bits"):
        assert found[name]["bytes"] > 0
        assert found[name]["batch 2"].keys() == {"plain", "auto"}
    text = render({**report, "about": {**report["about"], "toy": False, "name": "A card", "driver": "1"}})
    assert text.startswith("A card (driver 1, PyTorch ")
    assert "| v(8) |" in text
    assert "transformers, compiled" in text


def test_the_page_has_the_table_of_the_report() -> None:
    """If not: python -m benchmarks.gpu --render."""
    text = PAGE.read_text(encoding="utf-8")
    assert text == placed(text, render(read(RUN)), MARKS)


@pytest.mark.parametrize("about", [{}, {"about": {"toy": True}, "parts": {}}])
def test_what_was_not_measured_on_a_card_is_no_figure(about: dict[str, Any]) -> None:
    assert render(about) == NOTHING


class Time:
    """A clock that goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_report_is_whole_at_any_time(tmp_path: Path) -> None:
    """What was found stands in the file; a part that fails is noted, and the next has the time."""
    file, time, told, left = tmp_path / "r.json", Time(), list[str](), list[Any]()

    def part(*seconds: float, error: Exception | None = None) -> Any:
        def measure() -> Iterator[Finding]:
            for number, each in enumerate(seconds):
                time.now += each
                yield str(number), each
                assert str(number) in read(file)["parts"][names[len(told)]]["found"]
            if error is not None:
                raise error

        return measure

    names = ["short", "long", "broken", "absent", "last", "too late"]
    measures = [
        part(1, 1),
        part(9, 9, 9),
        part(1, error=RuntimeError("no memory")),
        part(error=Absent("no file")),
        part(30),
        part(1),
    ]
    parts = [Part(name, 1, measure) for name, measure in zip(names, measures, strict=True)]
    report = Report.of(file, {"name": "card"})
    measure_all(report, parts, 50, tell=told.append, after=lambda *rest: left.append(rest), clock=time)
    there = read(file)["parts"]
    states = {name: (part["state"], len(part["found"])) for name, part in there.items()}
    assert states == {
        "short": ("done", 2), "long": ("stopped", 2), "broken": ("failed", 1), "absent": ("absent", 0),
        "last": ("stopped", 1),
    }  # fmt: skip
    assert there["broken"]["error"] == "RuntimeError: no memory"
    assert "in measure" in there["broken"]["trace"][-1]
    assert told[2].endswith("RuntimeError: no memory")
    assert [len(remaining) for remaining, _ in left] == [5, 4, 3, 2]


def test_a_report_of_the_same_card_is_gone_on_with(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    parts = {"rows": {"state": "failed", "found": {}}, "verify": {"state": "absent", "found": {}}}
    file.write_text(json.dumps({"about": {"name": "card"}, "parts": parts}))
    report = Report.of(file, {"name": "card"})
    assert [report.lacks(name) for name in ("rows", "verify", "layers")] == [False, True, True]
    assert not Report.of(file, {"name": "another"}).parts


def test_where_the_device_is_lost_a_process_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the parts that remain, and the time that is left."""
    parts = [Part(name, 1, lambda: iter([("found", 1)])) for name in ("first", "second", "third")]
    monkeypatch.setattr("benchmarks.gpu.measuring.parts_of", lambda *given: parts)
    monkeypatch.setattr("benchmarks.gpu.card.Card.works", lambda card: False)
    started = list[list[str]]()

    def execute(program: str, words: list[str]) -> NoReturn:
        started.append(words)
        raise SystemExit

    monkeypatch.setattr("os.execv", execute)
    with pytest.raises(SystemExit):
        main(["--json", str(tmp_path / "r.json"), "--minutes", "2"])
    (words,) = started
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert (given["--parts"], given["--json"]) == ("second,third", str(tmp_path / "r.json"))
    assert 1.5 < float(given["--minutes"]) <= 2
    assert read(tmp_path / "r.json")["parts"].keys() == {"first"}


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no part nonsense; there are bandwidth, rows,"):
        main(["--json", str(tmp_path / "r.json"), "--parts", "nonsense"])


def test_a_model_that_is_not_there_is_said(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    main(["--json", str(file), "--parts", "verify", "--model", "nowhere"])
    part = read(file)["parts"]["verify"]
    assert (part["state"], part["found"]) == ("absent", {})
    assert "'nowhere' does not exist" in part["error"]


@pytest.mark.parametrize("format", GPU_FORMATS)
def test_drawn_weights_spread_like_trained_ones(format: str) -> None:
    data = drawn(FORMATS[format], 32, 512, torch.device("cpu")).numpy()
    values = Weight(FORMATS[format], data, 512).dequantize()
    assert 0.5 * SPREAD < values.std() < 2 * SPREAD
    assert abs(values.mean()) < 0.3 * SPREAD
