"""A name means one thing: a class name stands once in the package."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import outrider

PACKAGE = Path(outrider.__file__).parent
FOREIGN = ("compat", "metrics.py", "serving/messages", "serving/ollama", "serving/responses")
"""Where the names are those of other projects' APIs, several of which have a Message and a Tool."""


def test_a_class_name_stands_once() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    own = [p for p in sorted(PACKAGE.rglob("*.py")) if not str(p.relative_to(PACKAGE)).startswith(FOREIGN)]
    for path in own:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(PACKAGE)))
    assert len(places) > 100
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
