"""The extras that messages name are the package's."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

from outrider.errors import ConfigError, ModelError
from outrider.extras import CUDA, ENERGY, PLOT, SERVER, TORCH, Extra

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=\[]", each)[0].replace("-", "_") for each in requirements}


@pytest.mark.parametrize("extra", [TORCH, CUDA, SERVER, PLOT, ENERGY], ids=lambda extra: extra.name)
def test_it_brings_what_is_looked_for(extra: Extra) -> None:
    assert set(extra.modules) <= names(PROJECT["optional-dependencies"][extra.name])
    assert not set(extra.modules) & names(PROJECT["dependencies"])
    assert extra.missing is None


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert SERVER.missing == "uvicorn"
    with pytest.raises(ModelError) as caught:
        SERVER.require("it", ModelError)
    assert str(caught.value) == (
        "it needs the package 'uvicorn', which is not installed; it comes with the extra 'server': "
        "pip install 'outrider[server]'"
    )
    with pytest.raises(ConfigError, match="this needs the package 'uvicorn'"):
        SERVER.require("this")
