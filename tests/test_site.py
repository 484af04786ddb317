"""The documents as a site: every page has its place, and mkdocs has nothing to say about any of them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def entries(nav):
    for entry in nav:
        if isinstance(entry, str):
            yield entry
        else:
            for value in entry.values():
                yield from entries(value) if isinstance(value, list) else [value]


def test_every_page_has_its_place_in_the_navigation():
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    named = list(entries(config["nav"]))
    assert len(named) == len(set(named))
    outside = {name.removeprefix("files/") for name in named if name.startswith("files/")}
    assert all((ROOT / name).is_file() for name in outside)
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    unlisted = config["not_in_nav"].split()
    pages = {page for page in pages if not any(page == each or page.startswith(each) for each in unlisted)}
    assert {name for name in named if not name.startswith("files/")} == pages | {"index.md"}


@pytest.mark.slow
def test_it_builds_without_a_warning_and_asks_no_other_server(tmp_path):
    for package in ("material", "mkdocstrings"):
        pytest.importorskip(package, reason="needs the extra docs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml")]
    done = subprocess.run([*command, "-d", str(tmp_path / "site")], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING -" not in done.stderr
    index = (tmp_path / "site" / "index.html").read_text("utf-8")
    assert "where its mask is wrong" in index
    assert "set_image_batch" in (tmp_path / "site" / "api.html").read_text("utf-8")
    loads = re.compile(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?https?:[^>]*|<link[^>]*href=\"?https?:[^>]*")
    found = {
        match.group(0)
        for path in (tmp_path / "site").rglob("*.html")
        for match in loads.finditer(path.read_text("utf-8"))
    }
    assert not found
