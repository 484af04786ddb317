"""What code cites as "method, sec. N" or "evaluation, sec. N" is a heading of that document; links lead to files."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
CITED = re.compile(r"\b(method|evaluation), sec\. (\d+(?:\.\d+)?[a-z]?)(?:-(\d+))?")
HEADING = re.compile(r"^#+ (\d+(?:\.\d+)?[a-z]?)\b", re.M)


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
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "checkpoints").glob("*.md")]
    linked = {
        (page.relative_to(ROOT), target)
        for page in pages
        for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)\s]*)?\)", page.read_text("utf-8"))
    }
    assert len(linked) > 30
    assert not [entry for entry in linked if not (ROOT / entry[0]).parent.joinpath(entry[1]).exists()]
