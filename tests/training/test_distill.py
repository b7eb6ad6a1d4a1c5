"""`outrider distill`: data, training, what is saved, and going on after an interruption."""

from __future__ import annotations

import errno
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from outrider import LLM, SamplingParams, SpeculationStats
from outrider.cli.app import app, main
from outrider.errors import ConfigError, ModelError, OutriderError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.head_checkpoint import HeadCheckpoint
from outrider.training import contest, files
from outrider.training.distill import distill
from outrider.training.kinds import HeadKind
from outrider.training.openers import READERS
from outrider.training.score import Score
from outrider.training.settings import DistillConfig, Pace
from outrider.training.shards import Shards
from tests.factories import tiny_tokenizer, write_model
from tests.models.factories import tiny_config, write_hf
from tests.models.head_features import FEATURES

pytestmark = pytest.mark.usefixtures("one_thread")

FEW = Pace(sequences=12, turn=24)
ALWAYS_SAVED = replace(FEW, save=0.0, saving=math.inf)
SMALL: dict[str, Any] = {
    "tokens": 4000,
    "draft_vocab_size": (128,),
    "unrolled": (1, 3),
    "learning_rate": 5e-3,
}


class Told:
    """Keeps what it is told."""

    def __init__(self, *, stop_after: int = 10**9) -> None:
        self.tokens: list[int] = []
        self.losses: list[float] = []
        self.scores: list[Score] = []
        self.speeds: dict[str, float] = {}
        self._stop_after = stop_after

    def data(self, tokens: int, total: int) -> None:
        self.tokens.append(tokens)

    def trained(self, steps: int, total: int, loss: float) -> None:
        self.losses.append(loss)
        if steps == self._stop_after:
            raise KeyboardInterrupt

    def scored(self, score: Score) -> None:
        self.scores.append(score)

    def measured(self, shape: str, tokens_per_s: float) -> None:
        self.speeds[shape] = tokens_per_s


def run(target: str, out: Path, told: Told | None = None, pace: Pace = FEW, **changes: Any) -> Score:
    return distill(DistillConfig(target=target, out=out, **(SMALL | changes)), told or Told(), pace)


@pytest.mark.parametrize("feature", FEATURES)
def test_a_start_with_what_training_does_not_know_is_refused(feature: str, tmp_path: Path) -> None:
    write_hf(tmp_path / "target", tiny_config(hidden_size=64, num_hidden_layers=8))
    target = open_checkpoint(str(tmp_path / "target"))
    FEATURES[feature](tmp_path / "head", target.config)

    def start() -> HeadKind:
        folder = str(tmp_path / "head")
        return HeadKind.of(
            target,
            "target",
            start=folder,
            draft_vocab_size=None,
            layers=None,
            state_layers=(),
            quantized=False,
        )

    if feature in ("plain", "one state", "four states", "three layers", "many types", "attention_bias"):
        assert start().state_layers == tuple(sorted({*(start().config.state_layers or ()), 8}))
    else:
        with pytest.raises(ModelError, match="which training does not know"):
            start()


@pytest.fixture(scope="module")
def made(target: str, tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A head and all that led to it."""
    out: Path = tmp_path_factory.mktemp("made")
    run(target, out)
    return out


def test_a_head_that_runs(target: str, made: Path) -> None:
    llm = LLM(target, device="cpu", speculative_model=str(made), num_speculative_tokens=3)
    params = SamplingParams(temperature=0.7, seed=1, max_tokens=60, ignore_eos=True)
    output = llm.generate("the end of", params, use_tqdm=False)[0].outputs[0]
    plain = LLM(target, device="cpu").generate("the end of", params, use_tqdm=False)[0].outputs[0]
    assert output.token_ids == plain.token_ids
    assert output.speculation.drafted > 0
    assert HeadCheckpoint(made).config.draft_vocab_size == 128


def test_training_teaches(target: str, tmp_path: Path) -> None:
    """The loss falls, and the head is right more often than one that was trained for no time."""
    told = Told()
    score = run(target, tmp_path / "long", told, unrolled=(1,) * 30, learning_rate=2e-2)
    assert sum(told.losses[-3:]) / 3 < 0.8 * told.losses[0]
    assert told.scores[-1] == score
    short = run(target, tmp_path / "short", learning_rate=1e-9)
    assert score.greedy.length > short.greedy.length
    assert score.greedy.by_position[0] > 2 * short.greedy.by_position[0]


def test_data_is_the_targets_own(target: str, made: Path) -> None:
    """Recorded answers are what the target says, and recorded states what it thinks."""
    recordings = list(Shards(made / "work" / "data").recordings())
    assert sum(len(r.tokens) for r in recordings) >= SMALL["tokens"]
    opening = tiny_tokenizer().encode("<|im_start|>user\n")
    for r in recordings:
        assert list(r.tokens[: len(opening)]) == opening
        assert r.states.shape == (len(r.tokens), 3 * 48)  # of two layers there are three: both ends are read
        assert len(opening) < r.own <= len(r.tokens)


def test_interrupted_and_gone_on_with_is_the_same(target: str, made: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(target, tmp_path, Told(stop_after=3), ALWAYS_SAVED)
    told = Told()
    run(target, tmp_path, told)
    assert told.tokens[0] >= SMALL["tokens"]  # no data is made again
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (made, tmp_path))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_data_goes_on_after_the_last_shard(target: str, made: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    (work / "data").mkdir(parents=True)
    (work / "settings.json").write_text((made / "work" / "settings.json").read_text())
    first, second = Shards(made / "work" / "data").paths()[:2]
    (work / "data" / first.name).write_bytes(first.read_bytes())
    (work / "data" / f"{second.name}.partial").write_bytes(second.read_bytes()[:100])  # killed in the middle
    run(target, tmp_path)
    again = Shards(work / "data").paths()
    assert [p.name for p in again] == [p.name for p in Shards(made / "work" / "data").paths()]
    assert all((made / "work" / "data" / p.name).read_bytes() == p.read_bytes() for p in again)


def test_the_limit_of_data_on_disk(target: str, tmp_path: Path) -> None:
    run(target, tmp_path, data_limit=1)
    assert len(Shards(tmp_path / "work" / "data").paths()) == 1


def test_a_full_disk_leaves_the_last_checkpoint(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, saves = torch.save, []

    def full(state: Any, path: Any) -> None:
        saves.append(path)
        if len(saves) == 3:
            Path(path).write_bytes(b"half a check")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(state, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        run(target, tmp_path, pace=ALWAYS_SAVED)
    work = tmp_path / "work"
    assert torch.load(work / "checkpoint.pt", weights_only=True)["done"] == 2
    assert not list(work.glob("*.partial"))
    run(target, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()


def test_a_full_disk_is_told_in_one_line(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, write: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr("outrider.training.settings.write_whole", full)
    monkeypatch.setattr("sys.argv", ["outrider", "distill", "--target", target, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 2
    assert "No space left on device" in capsys.readouterr().err


def test_other_settings_in_the_same_folder_are_refused(target: str, made: Path) -> None:
    with pytest.raises(ConfigError, match="begun with seed = 0, and now it is 1"):
        run(target, made, seed=1)


def test_a_head_goes_on_from_another(target: str, made: Path, tmp_path: Path) -> None:
    """Its weights and its words are where the training begins, and more training helps."""
    still = run(target, tmp_path / "still", start=str(made), learning_rate=1e-12, draft_vocab_size=())
    before, after = (load_file(folder / "model.safetensors") for folder in (made, tmp_path / "still"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    told = Told()
    score = run(target, tmp_path / "more", told, start=str(made), draft_vocab_size=(), unrolled=(1,) * 10)
    assert score.greedy.by_position[0] > still.greedy.by_position[0]
    assert told.losses[-1] < told.losses[0]


def test_a_head_of_several_layers(target: str, made: Path, tmp_path: Path) -> None:
    """It learns what it reads, and can be gone on from."""
    told = Told()
    run(target, tmp_path / "two", told, layers=(2,), unrolled=(1,) * 6)
    assert told.losses[-1] < told.losses[0]
    assert HeadCheckpoint(tmp_path / "two").config.sizes.layers == 2
    run(target, tmp_path / "more", start=str(tmp_path / "two"), draft_vocab_size=(), unrolled=(1,))
    assert HeadCheckpoint(tmp_path / "more").config.sizes.layers == 2


def test_of_several_shapes_the_fastest_is_kept(
    target: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All are trained on the same data; what is measured decides."""
    monkeypatch.setattr(contest, "ROUNDS", 1)
    monkeypatch.setattr(contest, "TOKENS", 8)
    told, shapes = Told(), {"1-layers-64-tokens", "1-layers-128-tokens"}
    score = run(target, tmp_path, told, draft_vocab_size=(64, 128), unrolled=(1,))
    assert told.speeds.keys() == shapes
    assert min(told.speeds.values()) > 0
    best = max(told.speeds, key=told.speeds.__getitem__)
    assert HeadCheckpoint(tmp_path).config.draft_vocab_size == int(best.split("-")[2])
    assert score in told.scores
    for shape in shapes:
        head = HeadCheckpoint(tmp_path / "work" / shape)
        same = (head.path / "model.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()
        assert same == (shape == best)


def test_a_head_reads_the_states_that_are_named(target: str, tmp_path: Path) -> None:
    run(target, tmp_path, state_layers=(2, 1), unrolled=(1,), tokens=400)
    assert HeadCheckpoint(tmp_path).config.state_layers == (1, 2)
    recordings = list(Shards(tmp_path / "work" / "data").recordings())
    assert recordings[0].states.shape[1] == 2 * 48
    with pytest.raises(ConfigError, match=r"state_layers = \(9,\), and .* has 2 layers; give none beyond"):
        run(target, tmp_path / "beyond", state_layers=(9,))


def test_what_a_head_cannot_go_on_from(target: str, made: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"draft_vocab_size = 64, and start = .* has 128"):
        run(target, tmp_path / "a", start=str(made), draft_vocab_size=(64,))
    with pytest.raises(ConfigError, match=r"layers = 2, and start = .* has 1"):
        run(target, tmp_path / "d", start=str(made), draft_vocab_size=(), layers=(2,))
    with pytest.raises(ConfigError, match=r"draft_vocab_size = 99999, and .* tokens; give no more"):
        run(target, tmp_path / "f", draft_vocab_size=(99999,))
    with pytest.raises(
        ConfigError, match=r"layers = 9, and a head begins as the last layers of .*, which has"
    ):
        run(target, tmp_path / "e", layers=(9,))
    with pytest.raises(ConfigError, match="start = 'x' is for kind = 'head', and kind is 'student'"):
        run(target, tmp_path / "b", start="x", kind="student", draft_vocab_size=())
    with pytest.raises(ModelError, match="was not made for the target"):
        run(target, tmp_path / "c", start="head", draft_vocab_size=())  # SmolLM2's


def test_some_conversations_are_about_texts(target: str, made: Path) -> None:
    """What the target has said to others stands in the user's turn."""
    tokenizer = tiny_tokenizer()
    texts = [tokenizer.decode(r.tokens) for r in Shards(made / "work" / "data").recordings()]
    openings = [opening for opening in READERS if not opening.startswith("{}")]
    about = [text for text in texts if any(opening.partition("{}")[0] in text for opening in openings)]
    assert 0 < len(about) < len(texts) / 2


def test_prompts_from_files(target: str, tmp_path: Path) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text(json.dumps({"turns": ["the end"]}) + "\n" + json.dumps({"turns": ["on and on"]}) + "\n")
    run(target, tmp_path / "lines", prompts=lines, tokens=400)
    text = tmp_path / "book.txt"
    text.write_text("It was on the hill.\n\nThen it rained, and then it stopped.\n")
    run(target, tmp_path / "text", prompts=text, tokens=400)
    tokenizer = tiny_tokenizer()

    def beginnings(folder: str) -> set[str]:
        recordings = Shards(tmp_path / folder / "work" / "data").recordings()
        return {tokenizer.decode(r.tokens[: r.own]) for r in recordings}

    assistant = "<|im_end|>\n<|im_start|>assistant\n"
    assert beginnings("lines") == {
        f"<|im_start|>user\n{turn}{assistant}" for turn in ("the end", "on and on")
    }
    assert beginnings("text") == {"It was on the hill.", "Then it rained, and then it stopped."}


def test_a_bad_line_of_prompts_is_named(target: str, tmp_path: Path) -> None:
    lines = tmp_path / "prompts.jsonl"
    lines.write_text(json.dumps({"turns": ["the end"]}) + "\n{not json\n")
    with pytest.raises(ConfigError, match="line 2"):
        run(target, tmp_path / "out", prompts=lines)


def test_a_target_without_a_chat_template_needs_prompts(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    write_model(tmp_path / "base", tokenizer=tokenizer)
    with pytest.raises(ConfigError, match="--prompts"):
        run(str(tmp_path / "base"), tmp_path / "out")


def test_a_student_is_a_draft_model(target: str, tmp_path: Path) -> None:
    run(target, tmp_path, kind="student", draft_vocab_size=(), unrolled=(1,) * 8)
    llm = LLM(target, device="cpu", speculative_model=str(tmp_path), num_speculative_tokens=3)
    outputs = llm.generate(["the end", "on"], SamplingParams(temperature=0, max_tokens=40), use_tqdm=False)
    plain = LLM(target, device="cpu").generate(
        ["the end", "on"], SamplingParams(temperature=0, max_tokens=40), use_tqdm=False
    )
    assert [o.outputs[0].token_ids for o in outputs] == [o.outputs[0].token_ids for o in plain]
    assert sum((o.outputs[0].speculation for o in outputs), SpeculationStats()).drafted > 0


def test_command(target: str, made: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        app,
        ["distill", "--target", target, "--out", str(tmp_path), "--tokens", "400", "--unrolled", "1",
         "--draft-vocab-size", "64", "--quantized"],
    )  # fmt: skip
    # A hidden size of 48 does not divide into groups for 4 bits: said at once, not after hours of training.
    assert isinstance(result.exception, OutriderError)
    assert "multiple of 32" in str(result.exception)
    assert not list(tmp_path.iterdir())
    work = tmp_path / "b" / "work"
    shutil.copytree(made / "work", work, ignore=lambda *_: ["checkpoint.pt"])  # the data is there already
    result = CliRunner().invoke(
        app,
        ["distill", "-m", target, "-o", str(tmp_path / "b"), "--tokens", str(SMALL["tokens"]),
         "--draft-vocab-size", "128", "--unrolled", "1", "--unrolled", "3", "--learning-rate", "5e-3"],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "acceptance length" in result.stdout


def test_resume_goes_on_with_the_options_it_was_begun_with(target: str, made: Path, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    shutil.copytree(made / "work" / "data", tmp_path / "work" / "data")
    shutil.copyfile(made / "work" / "settings.json", tmp_path / "work" / "settings.json")
    result = CliRunner().invoke(app, ["distill", "--resume", str(tmp_path), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    whole, resumed = (load_file(folder / "model.safetensors") for folder in (made, tmp_path))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_is_missing_or_too_much_on_the_command_line(tmp_path: Path) -> None:
    def refused(*options: str) -> str:
        result = CliRunner().invoke(app, ["distill", *options])
        assert result.exit_code != 0
        return " ".join((result.output + str(result.exception)).replace("│", " ").split())

    assert "--target and --out missing" in refused()
    assert "--out missing" in refused("--target", "x")
    assert "--seed and --resume" in refused("--resume", str(tmp_path), "--seed", "1")
    assert "nothing was begun in" in refused("--resume", str(tmp_path))


def test_nothing_is_written_in_part(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fails(partial: Path) -> None:
        partial.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        files.write_whole(path, fails)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
