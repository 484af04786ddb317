"""What the doctor says of this installation, and of ones that are broken on purpose."""

import json
import re
import shutil
import sys
from importlib import metadata
from pathlib import Path

import pytest

from ruac.base.assets import asset_root
from ruac.cli import main
from ruac.studies import doctor

REQUIRES = [
    "numpy>=1",
    "pillow>=9999",
    "no-such-package>=2",
    'tomli; python_version < "3"',
    'no-such-extra; extra == "more"',
    'rich>=1; extra == "enough"',
]


def found(findings, name):
    (finding,) = [finding for finding in findings if finding.name == name]
    return finding


@pytest.fixture
def installed(monkeypatch):
    """An installation that asks for what is not there."""
    real = metadata.metadata("numpy")
    del real["Provides-Extra"]
    for extra in ("more", "enough"):
        real["Provides-Extra"] = extra
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    monkeypatch.setattr(metadata, "metadata", lambda name: real)


def test_packages_and_extras(installed):
    findings = list(doctor._packages())
    assert [finding.name for finding in findings] == ["numpy", "pillow", "no-such-package", "more", "enough"]
    assert found(findings, "numpy").state == doctor.OK
    assert found(findings, "numpy").detail == metadata.version("numpy")
    assert found(findings, "pillow").state == doctor.BROKEN
    assert re.fullmatch(r"[\d.]+, expected >=9999", found(findings, "pillow").detail)
    assert found(findings, "no-such-package").mend == "pip install 'no-such-package>=2'"
    assert found(findings, "more").state == doctor.ABSENT
    assert "pip install 'ruac[more]'" in found(findings, "more").mend
    assert found(findings, "enough").state == doctor.OK


def test_a_checkpoint_that_was_changed_or_lost(monkeypatch, tmp_path):
    names = json.loads((asset_root() / doctor.HASHES).read_text())
    assert doctor.record_hashes(asset_root()) == names  # what is shipped is what is recorded: see record_hashes
    assert "checkpoints/nano.safetensors" in names
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"other")
    (tmp_path / "checkpoints/nano.safetensors").unlink()
    shutil.copy(asset_root() / "checkpoints/ruac_nano/config.json", tmp_path / "checkpoints/ruac_nano/config.json")
    shutil.copy(asset_root() / doctor.HASHES, tmp_path / doctor.HASHES)
    monkeypatch.setattr(doctor, "asset_root", lambda: tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "sam2.1_hiera_tiny.pt").write_bytes(b"123")
    findings = list(doctor._checkpoints())
    assert "not found" in found(findings, "checkpoints/nano.safetensors").detail
    assert found(findings, "checkpoints/ruac_nano/config.json").state == doctor.OK
    changed = found(findings, "checkpoints/ruac_nano/model.safetensors")
    assert changed.state == doctor.BROKEN
    assert names["checkpoints/ruac_nano/model.safetensors"] in changed.detail
    assert "3 bytes, expected 156008466" in found(findings, "sam2.1_hiera_tiny.pt").detail
    assert found(findings, "sam2.1_hiera_large.pt").mend == "ruac fetch-checkpoint large"
    (tmp_path / doctor.HASHES).unlink()
    assert [finding.state for finding in doctor._checkpoints()] == [doctor.BROKEN]


def test_a_torch_that_cannot_be_imported(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    findings = list(doctor._devices())
    assert found(findings, "torch").state == doctor.BROKEN
    assert found(findings, "cpu").state == doctor.OK


def test_too_little_space_is_said(monkeypatch):
    monkeypatch.setattr(doctor, "SPACE", 1e9)
    disk = found(list(doctor._space()), "disk")
    assert disk.state == doctor.ABSENT
    assert "runs write there" in disk.mend


def test_the_verb(installed, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["doctor", "--json"])
    assert stopped.value.code == 1
    content = json.loads(capsys.readouterr().out)
    assert content["ok"] is False
    states = {each["name"]: each["state"] for each in content["findings"]}
    assert states["pillow"] == "broken"
    assert states["more"] == "absent"
    with pytest.raises(SystemExit):
        main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line[:1] not in " -!"] == [
        *("versions", "packages", "extras", "devices", "checkpoints", "space"),
    ]
    assert any(line.startswith("! pillow") for line in lines)
    assert "-> pip install 'no-such-package>=2'" in " ".join(" ".join(lines).split())


def test_a_whole_installation_ends_well(monkeypatch, capsys):
    monkeypatch.setattr(metadata, "requires", lambda name: ["numpy", 'rich; extra == "dev"'])
    main(["doctor", "--answer"])
    out = capsys.readouterr().out
    assert "nano" in out.splitlines()[-1]
    assert "answers on" in out
    assert str(Path(sys.executable)) in out
