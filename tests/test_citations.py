"""What code cites as "method, sec. N" or "evaluation, sec. N" is a heading of that document; links lead to files."""

import re
from pathlib import Path

import yaml

from ruac.base.version import VERSION

ROOT = Path(__file__).parents[1]
CITED = re.compile(r"\b(method|evaluation), sec\. (\d+(?:\.\d+)?[a-z]?)(?:-(\d+))?")
HEADING = re.compile(r"^#+ (\d+(?:\.\d+)?[a-z]?)\b", re.M)
KINDS = ["head", "attack", "metric", "domain", "calibrator", "backbone"]


def test_cited_sections_exist():
    headings = {
        name: set(HEADING.findall((ROOT / "docs" / f"{name}.md").read_text("utf-8")))
        for name in ("method", "evaluation")
    }
    cited = {
        (path.relative_to(ROOT), document, section)
        for folder in ("ruac", "configs", "tools")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".yaml")
        for document, first, last in CITED.findall(path.read_text("utf-8"))
        for section in (first, *([last] if last else []))
    }
    assert len(cited) > 5
    assert not [entry for entry in cited if entry[2] not in headings[entry[1]]]


def test_links_lead_to_files():
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    pages += [page for folder in ("checkpoints", "examples") for page in (ROOT / folder).glob("*.md")]
    linked = {
        (page.relative_to(ROOT), target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
    }
    assert len(linked) > 30
    assert not [entry for entry in linked if not (ROOT / entry[0]).parent.joinpath(entry[1]).exists()]


def test_the_guide_for_contributors_names_what_there_is():
    """Every path in backticks exists, and each registry of "add your own" is in a file that its row links to."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = set(re.findall(r"`((?:ruac|tests|docs|configs|tools|examples)/[\w./-]*)`", text))
    assert len(paths) > 15
    assert not [path for path in paths if not (ROOT / path).exists()]
    rows = [line for line in text.splitlines() if line.startswith("| ") and "](" in line]
    assert [row.split("|")[1].strip() for row in rows] == KINDS
    for row in rows:
        code = "".join((ROOT / path).read_text("utf-8") for path in re.findall(r"\]\((ruac/[\w./]+\.py)\)", row))
        named = set(re.findall(r"`(?:ReliabilitySums\.)?([A-Z]\w+|[a-z]+_[a-z_]+|compute)`", row))
        assert named, row
        assert not [name for name in named if not re.search(rf"\b{name}\b", code)], row


def test_the_citation_is_of_this_version():
    content = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    assert content["version"] == VERSION
    assert {"cff-version", "message", "title", "authors"} <= content.keys()
