"""Fitting the context scale: to SAM 2 alone, to an exported head, and what it may not touch."""

import json

import pytest
import torch
from builders import save_backbone, with_head

from ruac.backbone import BackboneConfig
from ruac.backbone.prompts import first_prompts
from ruac.base.errors import RuacError
from ruac.calibration import local_temperature as context_fit
from ruac.calibration.local_temperature import (
    LocalTemperatureFitConfig,
    Pixels,
    fit_local_temperature,
    run_local_temperature_fit,
)
from ruac.inference.export import export_model, load_exported
from ruac.inference.model import UncertainSam
from ruac.training.attack import AttackConfig
from ruac.uncertainty import BayesianConfig, build_head, head_config
from ruac.uncertainty.local_temperature import INPUTS, LocalTemperature


@pytest.fixture
def config(coco_folder, tmp_path):
    return LocalTemperatureFitConfig(
        source=str(coco_folder),
        split="train",
        out=str(tmp_path / "fitted"),
        cpu=True,
        images=3,
        pixels=20,
        steps=5,
        batch=32,
    )


@pytest.fixture
def exported(nano, tmp_path, monkeypatch):
    """A signed head on the random nano, whole, in a folder."""
    model = with_head(nano, BayesianConfig(logit_scale=True), scale=0.3)
    return export_model(model, BackboneConfig(image_size=64), tmp_path / "signed", with_backbone=True)


def test_an_exported_head_gets_a_context_and_nothing_else_changes(config, exported):
    config.export = str(exported)
    before, after = load_exported(exported), load_exported(run_local_temperature_fit(config))
    assert (before.head.config.local_temperature, after.head.config.local_temperature) == (False, True)
    kept, found = before.head.state_dict(), after.head.state_dict()
    assert {name for name in found if name not in kept} == {n for n in found if n.startswith("local_temperature.")}
    for name, value in kept.items():
        assert torch.equal(found[name], value)
    torch.manual_seed(0)
    features = before.encode(torch.randn(1, 3, 64, 64)).gather(torch.zeros(1, dtype=torch.int64))
    prompts = first_prompts(torch.ones(1, 64, 64, dtype=torch.bool), box_share=1.0)
    answers = [model.decode(features, prompts) for model in (before, after)]
    assert torch.equal(answers[0].logits, answers[1].logits)
    one, other = (answer.posterior.calibrated()[0] for answer in answers)
    assert not torch.equal(one, other)
    assert torch.equal(one > 0, other > 0)


def test_sam_alone_gets_a_head_without_spread(config, nano, tmp_path):
    save_backbone(nano, tmp_path)
    config.backbone = str(tmp_path / "backbone.yaml")
    out = run_local_temperature_fit(config)
    content = json.loads((out / "config.json").read_text())
    assert content["head"]["posterior"] == "local_temperature"
    assert content["record"]["pixels"] > 0
    assert set(content["record"]["nll"]) == {"before", "after"}
    model = load_exported(out)
    features = model.encode(torch.randn(1, 3, 64, 64)).gather(torch.zeros(1, dtype=torch.int64))
    answer = model.decode(features, first_prompts(torch.ones(1, 64, 64, dtype=torch.bool), box_share=1.0))
    assert torch.equal(answer.posterior.variance, torch.zeros_like(answer.logits))
    assert torch.equal(answer.logits, answer.decoded.logits)


def test_the_fit_finds_a_scale_that_depends_on_an_input():
    """Truth drawn from the logit times 3 where the first input is high and times 1/3 where it is low."""
    torch.manual_seed(0)
    inputs, mean = torch.zeros(20000, len(INPUTS)), 2 * torch.randn(20000)
    high = torch.rand(20000) > 0.5
    inputs[:, 0] = high.float()
    factor = torch.where(high, 3.0, 1 / 3)
    target = (torch.rand(20000) < (factor * mean).sigmoid()).float()
    network, config = (
        LocalTemperature(8),
        LocalTemperatureFitConfig(source="-", backbone="nano", steps=400, batch=2048, rate=1e-2),
    )
    before, after = fit_local_temperature(network, Pixels(inputs, mean, torch.zeros(20000), target), config)
    assert after < before - 0.02
    found = network.log_scale(inputs.T[None, :, :, None]).reshape(-1).exp()
    assert found[high].mean() == pytest.approx(3, rel=0.25)
    assert found[~high].mean() == pytest.approx(1 / 3, rel=0.25)


def test_pixels_are_of_the_band_and_depend_on_the_seed_alone(config, exported, monkeypatch):
    config.export = str(exported)
    drawn = []
    monkeypatch.setattr(
        context_fit, "fit_local_temperature", lambda network, pixels, config: (drawn.append(pixels), (0.0, 0.0))[1]
    )
    run_local_temperature_fit(config)
    run_local_temperature_fit(config)
    assert torch.equal(drawn[0].inputs, drawn[1].inputs)
    assert len(drawn[0].mean) % (config.pixels + config.map_pixels) == 0
    assert drawn[0].target.min() >= 0
    assert drawn[0].target.max() <= 1
    assert (drawn[0].variance > 0).all()
    config.attack = AttackConfig(kind="none")
    run_local_temperature_fit(config)
    assert len(drawn[2].mean) < len(drawn[0].mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"export": None, "backbone": None}, "exactly one of export= and backbone="),
        ({"backbone": "nano", "images": 0}, "images: 0, expected at least 1"),
        ({"backbone": "nano", "attack": AttackConfig(kind="learned")}, "attack.kind: learned, expected an attack that"),
        ({"backbone": "nano", "rate": 0.0}, "rate above 0"),
    ],
)
def test_impossible_settings(change, message):
    with pytest.raises(RuacError, match=message):
        LocalTemperatureFitConfig(**({"source": "-"} | change)).validate()


def test_a_head_without_a_normal_logit_is_refused(config, nano, tmp_path):
    head = build_head(head_config("dropout"), token_dim=nano.token_dim, channels=nano.channels)
    model = UncertainSam(nano, head)
    config.export = str(export_model(model, BackboneConfig(image_size=64), tmp_path / "x", with_backbone=True))
    with pytest.raises(RuacError, match="posterior dropout, expected signed, nonnegative or local_temperature"):
        run_local_temperature_fit(config)
