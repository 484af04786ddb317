"""What is installed, what is broken and how to mend it; nothing is downloaded, and little is imported."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from ruac.base.assets import asset_root
from ruac.base.errors import RuacError
from ruac.base.files import read_json, sha256
from ruac.base.version import VERSION

OK, ABSENT, BROKEN = "ok", "absent", "broken"
HASHES = "checkpoints/hashes.json"
"""SHA-256 of every embedded file, by its path below `asset_root`; written by `record_hashes`."""
SPACE, MEMORY = 2.0, 2.0  # GB that a sweep or a training should find
OLDEST_PYTHON = (3, 10)
WIDTH = 38  # of a name's column


@dataclass(frozen=True)
class Finding:
    """state: ok; absent, which is needed for some things only; or broken, which is needed. mend: what to do."""

    area: str
    name: str
    state: str
    detail: str
    mend: str = ""


def examine(*, answer: bool = False) -> list[Finding]:
    """Everything, in the order in which it should be mended. answer: also let the embedded ``nano`` answer."""
    findings = [*_python(), *_packages(), *_devices(), *_checkpoints(), *_space()]
    return [*findings, _answers()] if answer else findings


def is_broken(findings: list[Finding]) -> bool:
    return any(finding.state == BROKEN for finding in findings)


def as_text(findings: list[Finding]) -> str:
    """A line for each finding under its area, and what to do under those that are not ok."""
    lines, area = [], None
    for finding in findings:
        if finding.area != area:
            lines.append(area := finding.area)
        mark = {OK: " ", ABSENT: "-", BROKEN: "!"}[finding.state]
        lines.append(f"{mark} {finding.name:{WIDTH}} {finding.detail}")
        if finding.mend:
            lines.append(f"  {'':{WIDTH}} -> {finding.mend}")
    return "\n".join(lines)


def as_json(findings: list[Finding]) -> str:
    return json.dumps({"ok": not is_broken(findings), "findings": [asdict(each) for each in findings]}, indent=1)


def _python() -> Iterator[Finding]:
    new = sys.version_info >= OLDEST_PYTHON
    expected = ".".join(map(str, OLDEST_PYTHON))
    mend = "" if new else f"install Python {expected} or newer"
    yield Finding("versions", "python", OK if new else BROKEN, f"{platform.python_version()}, {sys.executable}", mend)
    yield Finding("versions", "ruac", OK, f"{VERSION}, {Path(__file__).parents[1]}")


def _packages() -> Iterator[Finding]:
    """What the installed package asks for, by its own metadata: needed ones, then the extras."""
    try:
        asked, extras = metadata.requires("ruac") or [], metadata.metadata("ruac").get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        mend = "pip install . in the checkout, or sh tools/setup.sh"
        yield Finding("packages", "ruac", BROKEN, "not installed as a package; what it needs is unknown", mend)
        return
    try:
        from packaging.requirements import Requirement
    except ImportError:
        yield Finding("packages", "packaging", BROKEN, "absent; versions cannot be compared", "pip install packaging")
        return
    requirements = {str(each): each for each in map(Requirement, asked)}.values()
    for each in requirements:
        if each.marker is None or each.marker.evaluate({"extra": ""}):
            problem, found = _problem(each)
            mend = f"pip install '{each.name}{each.specifier}'" if problem else ""
            yield Finding("packages", each.name, BROKEN if problem else OK, problem or found, mend)
    for extra in extras:
        own = [each for each in requirements if each.marker and _only_in(each, extra)]
        lost = [f"{each.name} {problem}" for each in own if (problem := _problem(each)[0])]
        mend = f"pip install 'ruac[{extra}]' (in a checkout: '.[{extra}]')" if lost else ""
        detail = ", ".join(lost) or ", ".join(f"{each.name} {_problem(each)[1]}" for each in own)
        yield Finding("extras", extra, ABSENT if lost else OK, detail, mend)


def _only_in(requirement, extra: str) -> bool:
    """Whether this extra asks for it, and a plain installation does not."""
    return requirement.marker.evaluate({"extra": extra}) and not requirement.marker.evaluate({"extra": ""})


def _problem(requirement) -> tuple[str, str]:
    """What is wrong with an installed package, "" if nothing is; and its version."""
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return "absent", ""
    wrong = not requirement.specifier.contains(version, prereleases=True)
    return (f"{version}, expected {requirement.specifier}" if wrong else ""), version


def _devices() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("devices", "cpu", OK, f"{cores} cores, {platform.machine()}")
    try:
        import torch
    except Exception as error:  # a broken binary may raise what it likes
        mend = "pip install --force-reinstall torch torchvision"
        yield Finding("devices", "torch", BROKEN, f"cannot be imported: {error!r}", mend)
        return
    for index in range(torch.cuda.device_count()):
        of = torch.cuda.get_device_properties(index)
        yield Finding("devices", f"cuda:{index}", OK, f"{of.name}, {of.total_memory / 1e9:.0f} GB")
    if torch.backends.mps.is_available():
        yield Finding("devices", "mps", OK, "Apple GPU")
    if not torch.cuda.is_available() and shutil.which("nvidia-smi"):
        detail = f"torch {torch.__version__} sees no GPU, but a driver is installed"
        yield Finding(
            "devices", "cuda", ABSENT, detail, "install a CUDA build of torch; see nvidia-smi for its version"
        )


def _checkpoints() -> Iterator[Finding]:
    """The embedded files against their recorded hashes, and which official ones lie beside them."""
    root, mend = asset_root(), "install ruac again, or git checkout checkpoints"
    try:
        recorded = read_json(root / HASHES)
    except RuacError as error:
        yield Finding("checkpoints", HASHES, BROKEN, str(error), mend)
        return
    for name, expected in recorded.items():
        path = root / name
        found = sha256(path) if path.is_file() else None
        if found is None:
            yield Finding("checkpoints", name, BROKEN, f"{path}: not found", mend)
        elif found != expected:
            yield Finding("checkpoints", name, BROKEN, f"SHA-256 {found}, expected {expected}", mend)
        else:
            yield Finding("checkpoints", name, OK, f"SHA-256 {found[:16]}... as recorded")
    try:
        from ruac.backbone.names import OFFICIAL
    except Exception as error:  # of torch and sam2, which the backbones bring
        yield Finding("checkpoints", "backbones", BROKEN, f"cannot be imported: {error!r}", "see the packages above")
        return
    folders = [Path("checkpoints"), root / "checkpoints"]
    for entry in OFFICIAL.values():
        path = next((folder / entry.file for folder in folders if (folder / entry.file).is_file()), None)
        fetch = f"ruac fetch-checkpoint {entry.size}"
        if path is None:
            yield Finding("checkpoints", entry.file, ABSENT, f"not in {Path('checkpoints').resolve()}", fetch)
        elif (length := path.stat().st_size) != entry.bytes:
            detail = f"{path}: {length} bytes, expected {entry.bytes}"
            yield Finding("checkpoints", entry.file, ABSENT, detail, f"remove it; {fetch}")
        else:
            yield Finding("checkpoints", entry.file, OK, f"{path}: its length is right; {fetch} checks its hash")


def _space() -> Iterator[Finding]:
    free = shutil.disk_usage(".").free / 1e9
    low = f"less than {SPACE:g} GB; runs write there" if free < SPACE else ""
    yield Finding("space", "disk", ABSENT if low else OK, f"{free:.1f} GB free in {Path.cwd()}", low)
    try:
        import psutil
    except ImportError:
        return  # named above as an absent package
    memory = psutil.virtual_memory()
    low = f"less than {MEMORY:g} GB; close other programs" if memory.available / 1e9 < MEMORY else ""
    detail = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB available"
    yield Finding("space", "memory", ABSENT if low else OK, detail, low)


def _answers() -> Finding:
    try:
        import numpy as np

        from ruac import Predictor

        predictor = Predictor()
        predictor.set_image(np.full((32, 48, 3), 90, np.uint8))
        score = float(predictor.predict(point_coords=[[20, 10]], point_labels=[1]).scores[0])
    except Exception as error:  # whatever it is, it is what the user must know
        return Finding("answer", "nano", BROKEN, f"{type(error).__name__}: {error}", "see what is broken above")
    return Finding("answer", "nano", OK, f"answers on {predictor.device} (predicted IoU {score:.3f})")


def record_hashes(root: Path) -> dict[str, str]:
    """SHA-256 of every embedded weights and config file below ``ROOT/checkpoints``, by path."""
    files = sorted(p for p in (root / "checkpoints").rglob("*") if p.suffix in (".safetensors", ".json"))
    return {p.relative_to(root).as_posix(): sha256(p) for p in files if p != root / HASHES}
