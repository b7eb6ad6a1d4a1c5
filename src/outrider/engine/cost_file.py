"""What was measured and learnt about costs, kept between runs in the user's cache directory."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from outrider.drafting.costs import DraftCost, TargetCost
from outrider.messages import reason

logger = logging.getLogger(__name__)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Target(_Strict):
    counts: list[PositiveInt]
    seconds: list[PositiveFloat]
    position: NonNegativeFloat
    position_row: NonNegativeFloat
    request: NonNegativeFloat


class _Draft(_Strict):
    fixed: NonNegativeFloat
    each: NonNegativeFloat
    first: NonNegativeFloat
    catch_up: NonNegativeFloat


class _Contents(_Strict):
    measured_for: dict[str, Any]
    target: _Target
    drafters: list[_Draft]


class CostFile:
    """One file for each setting that costs depend on. setting: everything that tells two of them apart."""

    def __init__(self, setting: Mapping[str, Any], folder: Path | None = None) -> None:
        self._setting = json.loads(json.dumps(setting))
        self._told = False
        name = sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:24]
        self.path = (folder or user_cache_path("outrider")) / "costs" / f"{name}.json"

    def load(self) -> tuple[TargetCost, list[DraftCost]] | None:
        """What was saved, or None where nothing was. A file that is broken is told of and measured anew."""
        try:
            contents = _Contents.model_validate_json(self.path.read_bytes())
            if contents.measured_for != self._setting:
                raise ValueError("it is of another setting")
            target = TargetCost(**contents.target.model_dump())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            logger.warning("%s cannot be used and is measured again: %s", self.path, reason(error))
            return None
        return target, [DraftCost(**cost.model_dump()) for cost in contents.drafters]

    def save(self, target: TargetCost, drafters: Sequence[DraftCost]) -> None:
        """Write it, as a whole or not at all. Where it cannot be written it is told of, once."""
        contents = {
            "measured_for": self._setting,
            "target": target.as_json(),
            "drafters": [cost.as_json() for cost in drafters],
        }
        partial = self.path.with_suffix(".partial")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(json.dumps(contents, indent=1))
            partial.replace(self.path)
        except OSError as error:
            if not self._told:
                self._told = True
                logger.warning("costs are measured at every start, since they cannot be saved: %s", error)
