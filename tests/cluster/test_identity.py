"""Which engines may take over each other's requests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from outrider.cluster import identity
from outrider.cluster.identity import digest_of_file, identity_of
from tests.engine.helpers import load


def test_what_changes_no_token_is_left_out(target: str, draft: str) -> None:
    alone = identity_of(load(target))
    assert identity_of(load(target, draft, num_threads=1, max_num_seqs=2)) == alone


def test_what_changes_tokens_is_seen(target: str, draft: str, tmp_path: Path) -> None:
    """Another model, what its weights become, and files that changed under the same name."""
    copy = tmp_path / "copy"
    shutil.copytree(target, copy)
    same = identity_of(load(str(copy)))
    assert same == identity_of(load(target))
    others = [
        identity_of(load(draft)),
        identity_of(load(target, dtype="bfloat16")),
        identity_of(load(target, kv_cache_dtype="int8")),
        identity_of(load(target, draft, acceptance="standard")),
    ]
    generation = copy / "tokenizer_config.json"
    generation.write_text(json.dumps(json.loads(generation.read_text()) | {"chat_template": "{{ 1 }}"}))
    others.append(identity_of(load(str(copy))))
    assert len({same, *others}) == 1 + len(others)


def test_large_files_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other weights are seen, in all of a file or in a hundredth of it."""
    for name, value in {"WHOLE": 2**16, "PLACE": 2**6}.items():
        monkeypatch.setattr(identity, name, value)
    weights = np.random.default_rng(0).integers(0, 256, 2**20, np.uint8)
    part = weights.copy()
    part[2**19 :][: 2**20 // 100] ^= 1
    digests = []
    for number, data in enumerate((weights, weights, part, weights ^ 1, weights[:-1])):
        path = tmp_path / str(number)
        path.write_bytes(data.tobytes())
        digests.append(digest_of_file(path))
    assert digests[0] == digests[1]
    assert len(set(digests)) == 4
