"""The site: built without a warning, complete, and sufficient unto itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.front_table import read_run
from tests.docs.documents import ROOT
from tests.docs.shell import COMMANDS

# What a browser fetches when it shows a page. Links that a reader may follow are no matter.
FETCHED = re.compile(r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?([^"'\s>]+)|<link\b([^>]*)>""")
FETCHING = re.compile(r"""rel=["']?(?:stylesheet|preload|preconnect|icon|prefetch)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "WARNING" not in result.stderr + result.stdout
    return folder


def test_every_page_is_there(site: Path) -> None:
    for page in ROOT.glob("docs/*.md"):
        name = "index.html" if page.stem == "index" else f"{page.stem}/index.html"
        assert (site / name).is_file()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    fetched = []
    for page in site.rglob("*.html"):
        for source, link in FETCHED.findall(page.read_text(encoding="utf-8")):
            if source or FETCHING.search(link):
                fetched.append(source or link)
    assert fetched
    assert not [each for each in fetched if "//" in each]


def test_docstrings_and_the_table_are_in_it(site: Path) -> None:
    """The reference is made from the code, and the table of the README is taken over, not copied."""
    reference = (site / "api" / "index.html").read_text(encoding="utf-8")
    assert "Complete one prompt or many, batched" in reference
    figures = (site / "performance" / "index.html").read_text(encoding="utf-8")
    assert "--8&lt;--" not in figures
    for entry in read_run().entries:
        assert f"<td>{entry.model}: " in figures


def test_every_command_and_option_is_in_it(site: Path) -> None:
    """The page is written when the site is built."""
    page = (site / "cli" / "index.html").read_text(encoding="utf-8")
    for name, command in COMMANDS.items():
        assert f'<h2 id="{name}">' in page
        shown = [each for each in command.params if not each.hidden]
        assert shown
        for each in shown:
            argument = each.param_type_name == "argument"
            names = [(each.metavar or each.name.upper()).strip("[].")] if argument else each.opts
            for name in names:
                assert f"<code>{name}</code>" in page
    assert not (site / "cli_reference.py").exists()
