"""Exported models come back bit for bit, or with a reason why not."""

import json
import shutil
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from builders import export_with_backbone_beside, save_backbone, with_head
from safetensors.torch import load_file, save_file

from ruac import __version__
from ruac.backbone import BackboneConfig
from ruac.backbone.prompts import Prompts
from ruac.base.errors import RuacError
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.export import export_model, fingerprint, load_exported
from ruac.inference.export_config import read_config
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.inference.second_look import LooksConfig
from ruac.inference.unccorr import UncCorr
from ruac.uncertainty import BayesianConfig, head_config
from ruac.uncertainty.look_reader import INPUTS, LookReader, LookReaderConfig
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead


@pytest.fixture(scope="module")
def model(nano):
    return with_head(nano, BayesianConfig(logit_scale=True), noise=0.05)


@pytest.fixture(scope="module")
def spec(nano, tmp_path_factory):
    """The backbone as a file, in a folder whose name needs care."""
    return save_backbone(nano, tmp_path_factory.mktemp("a b=[c"))


def export(model, spec, out, with_backbone, **about):
    """A head-only export has its backbone's file beside it, where it may be named."""
    if with_backbone:
        return export_model(model, spec, out, with_backbone=True, **about)
    return export_with_backbone_beside(model, spec, out, **about)


@pytest.fixture(scope="module")
def head_only(model, spec, tmp_path_factory):
    return export(model, spec, tmp_path_factory.mktemp("exported"), False)


@pytest.fixture
def exported(head_only, tmp_path):
    """A copy to be spoilt."""
    return shutil.copytree(head_only, tmp_path / "out")


@torch.no_grad()
def answer(model):
    generator = torch.Generator().manual_seed(5)
    features = model.encode(torch.randn(2, 3, 64, 64, generator=generator))
    points = 64 * torch.rand(2, 2, 2, generator=generator)
    out = model.decode(features, Prompts(points, torch.tensor([[1, 0], [1, 1]])))
    return out.logits, out.iou, *out.posterior.calibrated(), out.calibrated_logit(torch.tensor([0, 2]))


def same(model, other):
    return all(torch.equal(a, b) for a, b in zip(answer(model), answer(other), strict=True))


@pytest.mark.parametrize("with_backbone", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        BayesianConfig(logit_scale=True),
        head_config("nonnegative", kappa="pixel", variance="short"),
        head_config("evidential"),
        head_config("dropout", samples=3),
        head_config("laplace", logit_scale=True),
    ],
)
def test_round_trip_is_exact(nano, spec, tmp_path, config, with_backbone):
    model = with_head(nano, config, noise=0.05)
    out = export(model, spec, tmp_path / "new" / "out", with_backbone, record={"step": 7})
    assert {path.name for path in out.iterdir()} - {"nano.safetensors"} == {
        *("README.md", "config.json", "model.safetensors")
    }
    content = json.loads((out / "config.json").read_text())
    assert content["record"] == {"step": 7}
    assert content["ruac"] == __version__
    assert content["backbone"] == asdict(spec) | ({} if with_backbone else {"checkpoint": "nano.safetensors"})
    names = set(load_file(out / "model.safetensors"))
    assert any(name.startswith("backbone.") for name in names) == with_backbone
    before = torch.random.get_rng_state()
    loaded = load_exported(out)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same(loaded, model)
    assert loaded.head.config == model.head.config
    assert loaded.image_size == 64
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_a_backbone_in_another_place(model, spec, tmp_path):
    out = export_model(model, BackboneConfig("nano", "nowhere.safetensors", 64), tmp_path / "out", with_backbone=False)
    with pytest.raises(RuacError, match=r"nowhere\.safetensors: checkpoint of backbone nano not found"):
        load_exported(out)
    assert same(load_exported(out, backbone=spec), model)
    yaml = tmp_path / "own.yaml"
    yaml.write_text(json.dumps(asdict(spec)))
    assert same(load_exported(out, backbone=str(yaml)), model)


def test_half_precision_only_where_it_loses_nothing(make_nano, spec, tmp_path):
    model = with_head(make_nano(), noise=0.05)

    def backbone_types(folder):
        out = export_model(model, spec, folder, with_backbone=True)
        assert same(load_exported(out), model)
        tensors = load_file(out / "model.safetensors")
        assert {tensor.dtype for name, tensor in tensors.items() if name.startswith("head.")} == {torch.float32}
        return {tensor.dtype for name, tensor in tensors.items() if name.startswith("backbone.")}

    assert backbone_types(tmp_path / "full") == {torch.float32}
    sam = model.backbone.sam
    sam.load_state_dict({name: tensor.half().float() for name, tensor in sam.state_dict().items()})
    assert backbone_types(tmp_path / "half") == {torch.float16}
    sam.no_mem_embed.data[0, 0, 0] = 1e6  # finite in float32 only
    assert backbone_types(tmp_path / "large") == {torch.float32}


def test_without_a_head_the_backbone_is_the_export(make_nano, spec, tmp_path):
    model = UncertainSam(make_nano(), None)
    with pytest.raises(RuacError, match="no uncertainty head"):
        export_model(model, spec, tmp_path / "out", with_backbone=False)
    assert not (tmp_path / "out").exists()
    with torch.no_grad():
        model.backbone.sam.sam_mask_decoder.iou_token.weight += 1
    loaded = load_exported(export_model(model, spec, tmp_path / "out", with_backbone=True))
    assert loaded.head is None
    assert fingerprint(loaded) == fingerprint(model)


def test_another_backbone_is_refused(exported, nano, tmp_path):
    state = nano.sam.state_dict()
    state["sam_mask_decoder.iou_token.weight"] = state["sam_mask_decoder.iou_token.weight"] + 1e-3
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(RuacError, match=r"out: the head belongs to another nano backbone than nano \(mask decoder "):
        load_exported(exported, backbone=BackboneConfig("nano", str(tmp_path / "other.safetensors"), 64))


@pytest.fixture
def change(exported):
    """Change the tensors or the config of an export, expect a refusal, and return its message."""

    def change(*, tensors=None, config=None, text=None):
        weights, settings = exported / "model.safetensors", exported / "config.json"
        if tensors is not None:
            content = load_file(weights)
            tensors(content)
            save_file(content, weights)
            read_config(exported).write(exported)  # with their hash
        if config is not None:
            content = json.loads(settings.read_text())
            config(content)
            settings.write_text(json.dumps(content))
        if text is not None:
            settings.write_bytes(text)
        with pytest.raises(RuacError) as info:
            load_exported(exported)
        message = str(info.value)
        assert str(exported) in message
        assert "\n" not in message
        return message

    return change


def test_tensors_that_do_not_fit_are_named(change):
    name = "head.weight_shape.bias"
    kept = {}
    assert 'Missing key(s) in state_dict: "weight_shape.bias"' in change(tensors=lambda t: kept.update(b=t.pop(name)))
    assert "weight_shape.bias: shape [3], expected [" in change(tensors=lambda t: t.update({name: torch.zeros(3)}))
    assert "unexpected tensor 'other'" in change(tensors=lambda t: t.update({name: kept["b"], "other": torch.zeros(1)}))
    left_over = lambda t: (t.pop("other"), t.update({"head.other": torch.zeros(1)}))  # noqa: E731
    assert 'Unexpected key(s) in state_dict: "other"' in change(tensors=left_over)
    # A head-only export does not silently drop a backbone.
    smuggled = lambda t: (t.pop("head.other"), t.update({"backbone.x": torch.zeros(1)}))  # noqa: E731
    assert "unexpected tensor 'backbone.x'" in change(tensors=smuggled)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 3, "format 3 of a newer ruac, expected 2 or older"),
        ("head", [], "head: expected a mapping of keys, found list"),
        ("head", {"posteriour": "signed"}, "head: unknown key 'posteriour'; did you mean 'posterior'?"),
        ("head", {"hidden": "wide"}, "head: key 'hidden'"),
        ("backbone", {"knd": "nano"}, "backbone: unknown key 'knd'; did you mean 'kind'?"),
        ("backbone", None, "backbone: expected a mapping of keys, found NoneType"),
    ],
)
def test_config_values_that_are_wrong_are_named(change, key, value, message):
    assert message in change(config=lambda content: content.update({key: value}))


@pytest.mark.parametrize("key", ["backbone", "backbone_included", "decoder_sha256", "head"])
def test_config_keys_that_are_missing_are_named(change, key):
    assert f"key '{key}' is missing" in change(config=lambda content: content.pop(key))


@pytest.mark.parametrize("text", [b"{", b"", b"\xff\xfe", b"[1]", b"3"])
def test_broken_configs(change, text):
    message = change(text=text)
    assert "broken JSON" in message or "expected an export of format 2" in message


def test_folders_that_are_no_export(exported, tmp_path):
    for path in (tmp_path / "absent", exported / "config.json"):
        with pytest.raises(RuacError, match="not found; expected a folder written by ruac export"):
            load_exported(path)
    (exported / "model.safetensors").write_bytes(b"garbage")
    with pytest.raises(RuacError, match=r"model\.safetensors: damaged or of another export"):
        load_exported(exported)
    read_config(exported).write(exported)
    with pytest.raises(RuacError, match=r"model\.safetensors: cannot be read as safetensors"):
        load_exported(exported)
    (exported / "model.safetensors").unlink()
    with pytest.raises(RuacError, match=r"model\.safetensors: not found; the export is not complete"):
        load_exported(exported)


def test_fingerprint_sees_names_shapes_and_values_but_not_types():
    layer = torch.nn.Linear(3, 2)
    first = fingerprint(layer)
    assert fingerprint(layer) == first
    rounded = fingerprint(layer.half().float())
    assert rounded != first
    assert fingerprint(layer.half()) == rounded
    layer.weight.data = layer.weight.data.reshape(3, 2)
    assert fingerprint(layer) != rounded


def test_inference_imports_no_training_code():
    script = """
import sys
import ruac
early = [m for m in ("sam2", "kornia", "accelerate", "ruac.inference.predictor", "ruac.backbone") if m in sys.modules]
from ruac import Predictor
from ruac.inference.predictor import Predictor as same
assert Predictor is same
training = ("accelerate", "ruac.training", "ruac.evaluation.sweep", "ruac.training.attack", "ruac.training.losses")
late = [m for m in sys.modules if m.startswith(training)]
print(early, late)
try:
    ruac.Predicter
except AttributeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["[] []", "module 'ruac' has no attribute 'Predicter'"]


@pytest.mark.parametrize("whole", [True, False])
def test_references_come_back(nano, shelf, tmp_path, whole):
    """A temperature and an ensemble are exports like any head: the same answers, and the same config."""
    spec = BackboneConfig(kind="nano", checkpoint=str(shelf / "nano.safetensors"), image_size=64)
    image = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    ensemble = UncertainSam(nano, Ensemble(EnsembleConfig(flips=["horizontal"], jitters=2)))
    for model in (UncertainSam(nano, TemperatureHead(TemperatureConfig(temperature=2.5))), ensemble):
        folder = tmp_path / model.head.config.posterior
        export(model, spec, folder, whole)
        answers = []
        for one in (model, folder):
            predictor = Predictor(one, device="cpu")
            predictor.set_image(image)
            answers.append(predictor.predict(point_coords=[[20, 15]], point_labels=[1]))
        np.testing.assert_array_equal(answers[1].masks, answers[0].masks)
        np.testing.assert_array_equal(answers[1].uncertainty, answers[0].uncertainty)
        assert load_exported(folder).head.config == model.head.config


def test_a_corrected_model_has_no_export(nano, tmp_path):
    with pytest.raises(RuacError, match="has no export"):
        export_model(UncertainSam(nano, None, [UncCorr()]), BackboneConfig(), tmp_path / "x", with_backbone=True)
    assert not (tmp_path / "x").exists()


def test_looks_and_their_reader_come_back(tmp_path, make_nano):
    reader = LookReader(LookReaderConfig(hidden=4, context=3))
    reader.standardise(torch.randn(5, len(INPUTS), 4, 4))
    with torch.no_grad():
        reader.network[-1].bias.fill_(0.5)
    model = UncertainSam(make_nano(), None, looks=LooksConfig(looks=["zoom:1.3"], keep_masks=True), reader=reader)
    export_model(model, BackboneConfig(image_size=64), tmp_path / "whole", with_backbone=True)
    loaded = load_exported(tmp_path / "whole")
    assert loaded.looks == model.looks
    assert fingerprint(loaded) == fingerprint(model)
    for key in ("looks", "reader"):
        content = json.loads((tmp_path / "whole" / "config.json").read_text())
        content[key]["nonsense"] = 1
        (tmp_path / "whole" / "config.json").write_text(json.dumps(content))
        with pytest.raises(RuacError, match=f"{key}: unknown key 'nonsense'"):
            load_exported(tmp_path / "whole")
        content[key].pop("nonsense")
        (tmp_path / "whole" / "config.json").write_text(json.dumps(content))
