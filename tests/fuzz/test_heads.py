"""Damaged heads: each works, with the target's own tokens, or is refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from outrider import LLM, SamplingParams
from outrider.config import resolve
from outrider.drafting.head import HeadDrafter
from outrider.engine.build import build_engine
from outrider.errors import ConfigError, ModelError
from outrider.models.checkpoint import open_checkpoint
from outrider.models.eagle3 import Eagle3, HeadRunner
from outrider.models.head_checkpoint import HeadCheckpoint, is_head
from tests.fuzz.head_mutations import mutate
from tests.models.factories import tiny_config, write_hf
from tests.models.head_features import FEATURES

SEEDS = range(200)
