"""The locked versions are those that pyproject.toml asks for, and the audit of them fails only for what it found."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


def locked():
    """Requirements of the lock, and the hashes of each."""
    text = re.sub(r"\s*#.*", "", (ROOT / "requirements.lock").read_text())
    for entry in filter(None, text.replace("\\\n", " ").splitlines()):
        requirement, *hashes = entry.split("--hash=")
        yield Requirement(requirement.strip()), [found.strip() for found in hashes]


def asked():
    """Requirements of the package itself. (Python 3.10 has no tomllib.)"""
    text = (ROOT / "pyproject.toml").read_text()
    listed = re.search(r"^dependencies = \[(.*?)^\]", text, re.M | re.S)[1]
    return [Requirement(entry) for entry in re.findall(r'"(.+?)"', listed)]


def test_the_lock_is_of_what_pyproject_asks_for():
    versions = {}
    for requirement, hashes in locked():
        (pin,) = requirement.specifier
        assert pin.operator == "==", requirement
        assert hashes, f"{requirement} has no hash"
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", found) for found in hashes), requirement
        versions.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    assert len(asked()) > 20
    for requirement in asked():
        found = versions.get(canonicalize_name(requirement.name))
        assert found, f"{requirement} is not locked"
        assert all(requirement.specifier.contains(version) for version in found), (requirement, found)
    assert "://" not in (ROOT / "requirements.lock").read_text()  # whose index it was made with


@pytest.mark.parametrize(
    ("audit", "status", "said"),
    [
        ("echo 'No known vulnerabilities found'", 0, "No known vulnerabilities found"),
        ("echo 'Found 1 known vulnerability in 1 package'; exit 1", 1, "Found 1 known vulnerability"),
        (
            "echo 'ConnectionError: Max retries exceeded' >&2; exit 1",
            0,
            "audit: not done: the advisory database cannot",
        ),
        (
            "echo 'a Dependency not found on PyPI and could not be audited: a (1)'; echo 'b  could not be audited: b'",
            0,
            "audit: not done for 2 packages",
        ),
        (None, 0, "audit: not done: pip-audit is not installed"),
    ],
)
def test_the_audit_fails_only_for_what_it_found(tmp_path, audit, status, said):
    (tmp_path / "tools").mkdir()
    (tmp_path / "bin").mkdir()
    shutil.copy(ROOT / "tools" / "audit.sh", tmp_path / "tools")
    for name in ("sh", "dirname", "ls", "grep"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    if audit is not None:
        (tmp_path / "bin" / "pip-audit").write_text(f"#!/bin/sh\n{audit}\n")
        (tmp_path / "bin" / "pip-audit").chmod(0o755)
    done = subprocess.run(
        ["sh", str(tmp_path / "tools" / "audit.sh")],
        env={"PATH": str(tmp_path / "bin")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, said in done.stdout) == (status, True), done
