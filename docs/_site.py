"""For mkdocs: the README is the first page, and files outside docs/ that pages link to come along under files/."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)")
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md", "checkpoints/MODEL_CARD.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the README, `PAGES`, and whatever is linked to from any page, until there is nothing new."""
    waiting = [ROOT / "README.md", *(ROOT / page for page in PAGES), *DOCS.rglob("*.md")]
    known: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in known or not path.is_file():
            continue
        known.add(path)
        if not path.is_relative_to(DOCS):
            files.append(File.generated(config, _uri(path), abs_src_path=str(path)))
        if path.suffix == ".md":
            waiting += [_target(path, link) for link in LINK.findall(path.read_text("utf-8"))]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as they are in the repository become links as they are in the site."""
    path = Path(page.file.abs_src_path)
    here = posixpath.dirname(page.file.src_uri)

    def moved(match: re.Match) -> str:
        target = _target(path, match[1])
        return posixpath.relpath(_uri(target), here) if target.is_file() else match[1]

    return LINK.sub(moved, markdown)


def _target(path: Path, link: str) -> Path:
    return Path(posixpath.normpath((path.parent / link).as_posix()))


def _uri(path: Path) -> str:
    """Where a file of the repository lies in the site."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"files/{path.relative_to(ROOT).as_posix()}"
