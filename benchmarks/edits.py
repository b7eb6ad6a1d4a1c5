"""Thirty edits of files of this project, as prompts for `benchmarks.spec_bench`.

python -m benchmarks.edits > edits.jsonl

Each asks for a whole file of 100 to 300 lines with one parameter renamed, the one that is written most often.
The category is the file's length: 100, 150, 200 or 250 lines and more.
"""

from __future__ import annotations

import ast
import json
import sys
from collections import Counter
from pathlib import Path

FILES = 30
LINES = range(100, 301)
SOURCE = Path(__file__).parent.parent / "src" / "outrider"
PROMPT = """\
Rename `{old}` to `{old}_` everywhere in this file and leave all else as it is. Answer with the whole file \
and nothing else.

```python
{text}```"""


def local_names(text: str) -> Counter[str]:
    """How often each parameter and local variable is written."""
    names = Counter(node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name))
    own = {node.arg for node in ast.walk(ast.parse(text)) if isinstance(node, ast.arg)} - {"self", "cls"}
    return Counter({name: count for name, count in names.items() if name in own and len(name) > 2})


def main() -> None:
    chosen = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        names = local_names(text)
        if len(text.splitlines()) in LINES and names:
            chosen.append((text, names.most_common(1)[0][0]))
    step = len(chosen) / FILES
    for text, old in (chosen[int(i * step)] for i in range(FILES)):
        lines = len(text.splitlines()) // 50 * 50
        prompt = PROMPT.format(old=old, text=text)
        sys.stdout.write(json.dumps({"category": f"{min(lines, 250)} lines", "turns": [prompt]}) + "\n")


if __name__ == "__main__":
    main()
