"""What a draft is made from, and how."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from outrider.errors import ConfigError
from outrider.option_types import Bytes
from outrider.training.files import write_whole
from outrider.validation import Strict


@dataclass(frozen=True)
class Pace:
    """How much is done between two times that something is saved or told.

    sequences: of a shard, which are generated at the same time; turn: tokens of a user's turn and of an
    answer, at most; save, evaluate: seconds of training, at least; saving: share of the time that checkpoints
    may take, which for a large head are gigabytes.
    """

    sequences: int = 96
    turn: int = 256
    save: float = 60.0
    evaluate: float = 300.0
    saving: float = 0.03


USUAL = Pace()


class DistillConfig(Strict):
    """What to make, and from how much."""

    target: str
    out: Path
    kind: Literal["head", "student"] = "head"
    prompts: Path | None = None
    """Prompts for the target to answer; None: it writes them itself."""
    engine: Literal["outrider", "vllm"] = "outrider"
    """What computes the target while data is made."""
    engine_options: dict[str, Any] = Field(default_factory=dict)
    """Options of that engine, if it is vLLM."""
    tokens: PositiveInt = 1_000_000
    """Tokens of training data, prompts included."""
    data_limit: Bytes = 8 * 2**30
    """Bytes of the data on disk: what comes first, this or `tokens`, ends the making of data."""
    start: str | None = None
    """A head to go on from, its vocabulary included; None: begin at the target's last layers."""
    draft_vocab_size: tuple[PositiveInt, ...] = ()
    """Tokens that a head can say, the target's most frequent: as many as `start`'s, or 8192."""
    layers: tuple[PositiveInt, ...] = ()
    """Layers of a head: as many as `start` has, or one. Of several shapes, each number of layers with each
    number of tokens, that is kept with which the target decodes fastest."""
    state_layers: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """The target's layers whose inputs a head reads: those of `start`, or a low, a middle and a late one."""
    unrolled: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 3, 4)
    """Steps unrolled in each pass over the data; a student's passes are as many."""
    learning_rate: PositiveFloat = 3e-3
    quantized: bool = False
    """Save a head's matrices in 4 bits, which other engines do not read."""
    seed: int = 0
    device: str = "auto"

    @model_validator(mode="after")
    def _a_shape_is_a_heads(self) -> DistillConfig:
        for name in ("start", "draft_vocab_size", "layers", "state_layers"):
            value = getattr(self, name)
            if value and self.kind != "head":
                raise ValueError(f"{name} = {value!r} is for kind = 'head', and kind is {self.kind!r}")
        return self

    @model_validator(mode="after")
    def _vllm_makes_data_alone(self) -> DistillConfig:
        if self.engine_options and self.engine != "vllm":
            raise ValueError("options of an engine are given without engine = 'vllm'; leave them out")
        if self.engine == "vllm" and max(len(self.layers), len(self.draft_vocab_size)) > 1:
            raise ValueError("heads of several shapes are tried out on our engine; with vLLM name one shape")
        return self

    @classmethod
    def begun(cls, out: Path, device: str) -> DistillConfig:
        """What was begun in a folder. Raises ConfigError where nothing was."""
        path = _settings(out)
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")), out=out, device=device)
        except FileNotFoundError:
            raise ConfigError(
                f"nothing was begun in {str(out)!r}: there is no {path}; give --target and --out to begin"
            ) from None


def claim(config: DistillConfig) -> None:
    """See to it that all that is made in a folder is made by one set of settings. Raises ConfigError."""
    # Where it is made may differ from one run to the next.
    settings = json.loads(config.model_dump_json(exclude={"out", "device"}))
    path = _settings(config.out)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(settings, indent=2)
        write_whole(path, lambda partial: partial.write_text(text + "\n", encoding="utf-8"))
        return
    for name, value in json.loads(path.read_text(encoding="utf-8")).items():
        if settings[name] != value:
            raise ConfigError(
                f"{str(config.out)!r} was begun with {name} = {value!r}, and now it is {settings[name]!r}; "
                "give the same to go on, or another --out to begin anew"
            )


def _settings(out: Path) -> Path:
    return out / "work" / "settings.json"
