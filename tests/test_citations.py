"""What code cites as "method, sec. N" or "evaluation, sec. N" is a heading of that document."""

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
