"""An exported folder from anywhere: older formats load, what was changed is refused, nothing else is opened."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from builders import export_with_backbone_beside, save_backbone, with_head
from safetensors.torch import load_file, save_file

from ruac.backbone import BackboneConfig
from ruac.base.errors import RuacError
from ruac.base.files import atomic_folder
from ruac.inference import export_config
from ruac.inference.export import export_model, fingerprint, load_exported
from ruac.inference.export_config import ExportConfig, read_config
from ruac.inference.model import UncertainSam
from ruac.inference.model_card import model_card
from ruac.uncertainty import BayesianConfig, HeadConfig

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(nano, tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    model = with_head(nano, BayesianConfig(logit_scale=True), noise=0.05)
    return export_with_backbone_beside(model, save_backbone(nano, folder), folder / "export")


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "export")


def edit(folder, **values):
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(content | values))


@pytest.mark.parametrize(("name", "format"), [("ruac_nano", 1), ("ruac_nano_scale", 2)])
def test_embedded_exports_of_both_formats_load(name, format):
    folder = ROOT / "checkpoints" / name
    assert json.loads((folder / "config.json").read_text())["format"] == format
    assert set(read_config(folder).sha256) == (set() if format == 1 else {"model.safetensors"})
    assert load_exported(folder).head.config.local_temperature


def test_format_1_is_migrated_to_the_same_model(folder):
    content = json.loads((folder / "config.json").read_text())
    new = load_exported(folder)
    old = {key: value for key, value in content.items() if key not in ("sha256", "calibrator")} | {"format": 1}
    old["head"] = {"context" if key == "local_temperature" else key: value for key, value in old["head"].items()}
    (folder / "config.json").write_text(json.dumps(old))
    assert fingerprint(load_exported(folder)) == fingerprint(new)
    read_config(folder).write(folder)
    assert json.loads((folder / "config.json").read_text()) == content
    assert fingerprint(load_exported(folder)) == fingerprint(new)


def test_weights_of_another_hash_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["head.log_scale"] += 1
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(RuacError, match=r"model\.safetensors: damaged or of another export"):
        load_exported(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"backbone_included": "no"}, "key 'backbone_included': 'no', expected true or false"),
        ({"decoder_sha256": "x" * 64}, "key 'decoder_sha256': expected a SHA-256"),
        ({"sha256": {}}, r"key 'sha256': expected the hashes of model\.safetensors"),
        ({"sha256": {"model.safetensors": "0" * 64, "../x": "0" * 64}}, "key 'sha256': expected the hashes of"),
        ({"sha256": {"model.safetensors": 5}}, r"key 'sha256\.model\.safetensors': expected a SHA-256"),
        ({"head": {"posterior": "signed", "hidden": 10**9}}, r"key 'head\.hidden': 1000000000, expected at most 4096"),
        ({"backbone": {"image_size": 10**6}}, r"key 'backbone\.image_size': 1000000, expected at most"),
        ({"calibrator": "temperature"}, r"hashes of calibrator\.safetensors and model\.safetensors"),
        ({"format": True}, "expected an export of format 2 or older"),
        ({"record": "x" * (1 << 20)}, r"bytes, expected at most 1048576"),
    ],
)
def test_what_a_config_may_not_say(folder, values, message):
    edit(folder, **values)
    with pytest.raises(RuacError, match=message):
        load_exported(folder)


def test_a_deeply_nested_config_is_one_line(folder):
    (folder / "config.json").write_text("[" * 500_000)
    with pytest.raises(RuacError, match="broken JSON"):
        load_exported(folder)


@pytest.mark.parametrize(
    "place",
    ["/dev/zero", "../nano.safetensors", "sub/nano.safetensors", "..\\nano.safetensors", "nano.pt", "", "package"],
)
def test_a_config_opens_no_file_elsewhere(folder, place, monkeypatch):
    monkeypatch.setattr("ruac.inference.export.load_backbone", lambda _: pytest.fail("opened"))
    edit(folder, backbone={"kind": "nano", "checkpoint": place, "image_size": 64})
    with pytest.raises(RuacError, match=r"backbone\.checkpoint.*expected backbone= from you"):
        load_exported(folder)


def test_the_caller_may_name_any_file(folder):
    elsewhere = folder.parent / "elsewhere.safetensors"
    (folder / "nano.safetensors").rename(elsewhere)
    spec = BackboneConfig("nano", str(elsewhere), 64)
    with pytest.raises(RuacError, match="not found"):
        load_exported(folder)
    assert load_exported(folder, backbone=spec).image_size == 64


def test_tensors_of_other_types_are_refused(folder):
    tensors = load_file(folder / "model.safetensors")
    for wrong, message in (
        (tensors["head.log_scale"].double(), "log_scale: torch.float64, expected torch.float32 or torch.float16"),
        (tensors["head.log_scale"].expand(1).clone(), r"log_scale: shape \[1\], expected \[\]"),
        (torch.zeros((), dtype=torch.complex64), "log_scale: torch.complex64, expected"),
    ):
        save_file(tensors | {"head.log_scale": wrong}, folder / "model.safetensors")
        read_config(folder).write(folder)
        with pytest.raises(RuacError, match=message):
            load_exported(folder)


def test_a_backbone_that_is_not_the_recorded_one_is_refused_in_a_complete_export_too(make_nano, tmp_path):
    out = export_model(UncertainSam(make_nano(), None), BackboneConfig(image_size=64), tmp_path, with_backbone=True)
    edit(out, decoder_sha256="0" * 64)
    with pytest.raises(RuacError, match="belongs to another nano backbone"):
        load_exported(out)


def test_the_card_has_metadata_that_a_hub_reads(folder):
    def header(text):
        return yaml.safe_load(text.split("---\n")[1])

    own = header((folder / "README.md").read_text())
    assert (own["library_name"], own["pipeline_tag"], own["license"]) == ("ruac", "mask-generation", "other")
    assert "uncertainty-quantification" in own["tags"]
    spec = BackboneConfig("base_plus", "checkpoints/sam2.1_hiera_base_plus.pt", 1024)
    config = ExportConfig(
        backbone=spec, backbone_included=False, decoder_sha256="0" * 64, head=HeadConfig("none"), calibrator="clicks"
    )
    text = model_card(config, {"license": "apache-2.0", "language": "en"})
    assert header(text)["base_model"] == "facebook/sam2.1-hiera-base-plus"
    assert (header(text)["license"], header(text)["language"]) == ("apache-2.0", "en")
    assert "license_name" not in header(text)
    assert "| calibration | clicks |" in text
    pytest.importorskip("huggingface_hub", reason="an extra")
    from huggingface_hub import ModelCard

    assert ModelCard(text).data.library_name == "ruac"


def test_a_failed_export_leaves_what_was_there(made, folder, nano, monkeypatch):
    def fails(self, _):
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr(export_config.ExportConfig, "write", fails)
    for place in (folder, folder.parent / "new"):
        with pytest.raises(RuacError, match="no free disk space"):
            export_model(with_head(nano), BackboneConfig(image_size=64), place, with_backbone=False)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["export"]


def test_a_folder_appears_whole_and_keeps_files_of_other_names(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "own.txt").write_text("mine")
    for name in ("new", "kept"):
        with atomic_folder(tmp_path / name, last="a") as inner:
            for file in "ab":
                (inner / file).write_text(file)
            assert not (tmp_path / name / "a").exists()
        assert (tmp_path / name / "a").read_text() == "a"
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["a", "b", "own.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "new"]
