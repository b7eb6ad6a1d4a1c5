"""Gemma 4's assistants draft what transformers' own class does, from the target's paged K and V."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from outrider.errors import ModelError
from outrider.models.assistant import Assistant, AssistantRunner
from outrider.models.assistant_checkpoint import AssistantCheckpoint, is_assistant
from outrider.models.checkpoint import open_checkpoint
from outrider.models.model import Model
from outrider.models.runner import ModelRunner
from outrider.models.shards import save_safetensors
from outrider.ops.budget import Budget
from outrider.ops.choice import Choice
from outrider.ops.lane import Lane
from outrider.ops.span import Span
from tests.models.assistants import TARGETS, reference_draft, target_config, write_assistant
from tests.models.factories import exact_backend, write_hf
from tests.models.families.table import config

TOLERANCE = 1e-4  # of the largest |logit| of a row
BLOCK_SIZE, LENGTH = 8, 4
LENGTHS = (2, 9, 17, 40)  # of texts: of one computed token, and beyond the window


@dataclass(frozen=True)
class Case:
    """reference, own: transformers' target and assistant. folder: of both."""

    reference: Any
    own: Any
    target: ModelRunner
    assistant: Assistant
    folder: Path


@pytest.fixture(scope="module", params=TARGETS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    path = tmp_path_factory.mktemp("model")
    reference = write_hf(path / "target", target_config(request.param))
    return reference, write_assistant(path / "assistant", reference), path


@pytest.fixture(scope="module", params=["torch", "native"])
def case(request: pytest.FixtureRequest, folder: tuple[Any, Any, Path]) -> Case:
    reference, own, path = folder
    backend = exact_backend(request.param)
    model = Model(open_checkpoint(str(path / "target")), backend)
    target = ModelRunner(
        model,
        num_blocks=200,
        block_size=BLOCK_SIZE,
        prefix_caching=False,
        state_layers=(model.config.num_layers,),
    )
    assistant = Assistant(AssistantCheckpoint(path / "assistant"), backend, model)
    return Case(reference, own, target, assistant, path)


def text(length: int) -> list[int]:
    return random.Random(length).sample(range(3, 270), length)


def computed(case: Case, tokens: Sequence[int], *, rejected: int = 0) -> tuple[Span, Any]:
    """The place from which a draft behind the tokens begins, and the target's last state there. rejected:
    further tokens whose K and V lie behind, as those of a draft that fell."""
    table = case.target.table()
    table.extend(len(tokens) + rejected)
    known = len(tokens) - 1
    passed = case.target.run([Span([*tokens[:-1], *text(rejected)], 0, table.tables, 1)])
    table.settle(known)
    table.extend(known + 1)
    return Span(tokens[-1:], known - 1, table.tables, 1), np.asarray(passed.kept)[known - 1 : known]


def lane(span: Span, length: int = LENGTH) -> Lane:
    return Lane(span, Choice(1), Budget(length), ())


@pytest.mark.parametrize("length", LENGTHS)
def test_logits_and_states_are_those_of_transformers(case: Case, length: int) -> None:
    tokens = text(length)
    span, state = computed(case, tokens)
    layers, backend = case.assistant.sources, case.assistant.backend
    first, then = (
        case.target.compile_over(backend, definition, layers=layers)
        for definition in (case.assistant.read, case.assistant.go_on)
    )
    for n, drafted in enumerate(reference_draft(case.reference, case.own, tokens, LENGTH)):
        logits, state = (then if n else first)([span], state)
        assert_near(logits[0], drafted.logits)
        assert_near(np.asarray(state)[0], drafted.state)
        span = Span([int(drafted.logits.argmax())], span.start, span.tables, 1)


def assert_near(actual: Any, expected: Any) -> None:
    wanted = expected.numpy()
    assert np.abs(actual - wanted).max() < TOLERANCE * np.abs(wanted).max()


def drafts_in_a_batch(case: Case, *, rejected: int = 3) -> list[tuple[int, ...]]:
    places = [computed(case, text(length), rejected=rejected) for length in LENGTHS]
    runner = AssistantRunner(case.assistant, case.target)
    states = case.assistant.backend.join([state for _, state in places])
    return [grown.tokens for grown in runner.read([lane(span) for span, _ in places], states)]


def expected_drafts(case: Case) -> list[tuple[int, ...]]:
    drafts = (reference_draft(case.reference, case.own, text(length), LENGTH) for length in LENGTHS)
    return [tuple(int(one.logits.argmax()) for one in draft) for draft in drafts]


def test_a_batch_drafts_in_one_call_as_each_alone(case: Case) -> None:
    """Whatever lies behind the committed tokens of their last blocks."""
    assert drafts_in_a_batch(case) == drafts_in_a_batch(case, rejected=0) == expected_drafts(case)


def test_a_draft_changes_nothing_of_the_target(case: Case) -> None:
    """K and V of all positions are the same before and after."""
    caches = case.target._cache
    for length in LENGTHS:
        span, state = computed(case, text(length), rejected=3)
        before = [bytes_of(values) for layer in caches for values in (layer.keys, layer.values)]
        AssistantRunner(case.assistant, case.target).read([lane(span)], state)
        after = [bytes_of(values) for layer in caches for values in (layer.keys, layer.values)]
        assert before == after


def bytes_of(values: Any) -> bytes:
    return (values.numpy() if isinstance(values, torch.Tensor) else values).tobytes()


def too_far(place: tuple[Span, Any]) -> tuple[Span, Any]:
    span, state = place
    return Span(span.tokens, span.start + 1, span.tables, 1), state


def too_short(place: tuple[Span, Any]) -> tuple[Span, Any]:
    span, state = place
    return Span(span.tokens, max(0, span.start - 1), span.tables, 1), state


@pytest.mark.parametrize("fault", [too_far, too_short])
def test_a_place_that_is_off_by_one_is_caught(
    case: Case, fault: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One position too far reads the K and V of a token that fell."""
    sound = computed
    monkeypatch.setitem(globals(), "computed", lambda *args, **others: fault(sound(*args, **others)))
    assert drafts_in_a_batch(case) != expected_drafts(case)


def test_a_short_list_of_tokens_is_passed_over(folder: tuple[Any, Any, Path], tmp_path: Path) -> None:
    """Its tensors and settings are there, and the best of all tokens is drafted."""
    reference, _, _ = folder
    vocab = reference.config.vocab_size
    number = next(n for n in range(5, vocab + 1) if vocab % n == 0)
    write_assistant(
        tmp_path, reference, use_ordered_embeddings=True, num_centroids=number, centroid_intermediate_top_k=5
    )
    assert is_assistant(tmp_path)
    assert any(name.startswith("masked_embedding") for name in load_file(tmp_path / "model.safetensors"))
    assert AssistantCheckpoint(tmp_path).vocab_size == vocab


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"new_gate": 2}, "new_gate.* = 2"),
    "no text": ({"text_config": None}, "text_config = None; it has to be an object"),
    "own K and V": (
        {"text_config.num_kv_shared_layers": 2},
        "num_kv_shared_layers = 2",
    ),
    "wide": ({"text_config.use_double_wide_mlp": True}, "use_double_wide_mlp = True; it has to be off"),
    "experts": ({"text_config.enable_moe_block": True}, "enable_moe_block = True"),
    "another family": ({"text_config.model_type": "llama"}, "text_config"),
    "untied": ({"tie_word_embeddings": False}, "tie_word_embeddings = False"),
    "hidden size": ({"backbone_hidden_size": 50}, "pre_projection.weight' has shape"),
    "window": ({"text_config.sliding_window": 64}, "it sees 64 positions, and this one keeps 20"),
    "heads": ({"text_config.num_key_value_heads": 4}, "it sees K and V of 4 heads of 16 dimensions"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_would_change_a_draft_is_refused(
    name: str, folder: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    changes, said = BAD[name]
    _, _, path = folder
    raw = json.loads((path / "assistant" / "config.json").read_text())
    for key, value in changes.items():
        place, _, own = key.rpartition(".")
        (raw[place] if place else raw)[own] = value
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "model.safetensors").symlink_to(path / "assistant" / "model.safetensors")
    backend = exact_backend("torch")
    with pytest.raises(ModelError, match=said):
        Assistant(
            AssistantCheckpoint(tmp_path), backend, Model(open_checkpoint(str(path / "target")), backend)
        )


def test_a_tensor_that_is_not_read_is_refused(folder: tuple[Any, Any, Path], tmp_path: Path) -> None:
    _, _, path = folder
    tensors = load_file(path / "assistant" / "model.safetensors")
    save_safetensors(tmp_path / "model.safetensors", {**tensors, "gate.weight": np.zeros(3, np.float32)})
    (tmp_path / "config.json").symlink_to(path / "assistant" / "config.json")
    with pytest.raises(ModelError, match=r"tensors that are not read: .*gate.weight"):
        AssistantCheckpoint(tmp_path)


def test_it_was_made_for_another_target(folder: tuple[Any, Any, Path], tmp_path: Path) -> None:
    _, _, path = folder
    backend = exact_backend("torch")
    for make, said in (
        (config("LlamaConfig"), "it sees a window in some layers and all in others"),
        (config("Gemma3TextConfig", head_dim=16, sliding_window=20, num_hidden_layers=7), "K and V of"),
    ):
        target = tmp_path / said[:5]
        write_hf(target, make())
        with pytest.raises(ModelError, match=said):
            Assistant(
                AssistantCheckpoint(path / "assistant"), backend, Model(open_checkpoint(str(target)), backend)
            )
