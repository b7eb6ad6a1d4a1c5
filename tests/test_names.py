"""A name means one thing: a class name stands once in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import outrider

PACKAGE = Path(outrider.__file__).parent


def test_a_class_name_stands_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 100
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
