"""From images to an export that predicts and is swept like any other."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import export_with_backbone_beside

from ruac import Predictor
from ruac.backbone import backbone_config, load_backbone
from ruac.base.errors import RuacError
from ruac.calibration import KINDS
from ruac.calibration.answer import AnswerConfig
from ruac.calibration.clustered import ClusteredConfig
from ruac.calibration.local import LocalConfig
from ruac.calibration.temperature import Temperature
from ruac.cli import main
from ruac.data.open import open_dataset
from ruac.evaluation.report.table import domain_table
from ruac.evaluation.results.load import read_table
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.runner import run_sweep
from ruac.fitting import calibrate
from ruac.fitting.cache import CachedAnswers
from ruac.fitting.calibrate import CalibrateConfig, run_calibrate
from ruac.fitting.older import LocalTemperatureFitConfig, TemperatureFitConfig
from ruac.inference.ensemble import Ensemble, EnsembleConfig
from ruac.inference.export import export_model, load_exported
from ruac.inference.export_config import read_config
from ruac.inference.model import UncertainSam
from ruac.training.attack import AttackConfig
from ruac.uncertainty import BayesianConfig, build_head
from ruac.uncertainty.local_temperature import LocalTemperature

QUICK = {
    "clustered": ClusteredConfig(2),
    "local": LocalConfig(steps=5),
    "answer": AnswerConfig(hidden=4, steps=100, batch=64),
}


def content(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_the_result_is_an_export(config, coco_folder, kind):
    out = run_calibrate(config(kind=kind, **QUICK))
    record = content(out)["record"]
    assert content(out)["calibrator"] == kind
    assert record["fitted_on"] == "source"
    assert {name: part["images"] for name, part in record["splits"][coco_folder.name].items()} == {
        "fit": 6,
        "held_out": 2,
    }
    assert record["calibration"]["sampling"]["pixels"] == 600
    assert set(record["held_out"]["band"]) == {"before", "after"}
    assert record["environment"]["commit"]
    image = open_dataset(coco_folder)[0].image
    answers = []
    for model in (load_exported(out), load_exported(out)):
        if answers:
            model.calibrator = None
        predictor = Predictor(model, device="cpu")
        predictor.set_image(image)
        answers.append(predictor.predict([[20, 15]], [1], decomposed=True))
    np.testing.assert_array_equal(answers[0].masks, answers[1].masks)
    np.testing.assert_array_equal(answers[0].logits, answers[1].logits)
    assert not np.allclose(answers[0].probability, answers[1].probability, atol=1e-3)
    assert answers[0].epistemic.max() < 1e-3  # SAM 2 alone has no spread, calibrated or not


def test_the_backbone_is_asked_once_for_several_kinds(config, monkeypatch):
    asked = []
    draw = calibrate.draw_prompted
    monkeypatch.setattr(calibrate, "draw_prompted", lambda *rest: (asked.append(1), draw(*rest))[1])
    run_calibrate(config())
    assert len(asked) == 8
    for kind in ("clustered", "clicks", "isotonic"):
        run_calibrate(config(kind=kind, **QUICK))
    assert len(asked) == 8
    run_calibrate(config(seed=1))
    assert len(asked) == 16
    run_calibrate(config(cache=""))
    assert len(asked) == 24


def test_a_killed_draw_continues(config, monkeypatch, tmp_path):
    asked, draw = [], calibrate.draw_prompted

    def killed(model, sample, *rest):
        asked.append(sample.record.id)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return draw(model, sample, *rest)

    monkeypatch.setattr(calibrate, "draw_prompted", killed)
    with pytest.raises(KeyboardInterrupt):
        run_calibrate(config())
    assert not (tmp_path / "calibrated").exists()
    run_calibrate(config())
    assert len(asked) == 4 + 5
    assert len(set(asked)) == 8
    (folder,) = {path.parent for path in (tmp_path / "answers").rglob("000005.safetensors")}
    assert len(CachedAnswers(folder)) == 6
    assert len(CachedAnswers(folder, every_click=True)) == 12


def test_it_is_fitted_on_the_images_it_says_and_on_no_other(config, coco_folder, tmp_path):
    """Annotations of held-out pictures may be anything."""
    out = run_calibrate(config())
    fit, held = ((out / "splits" / coco_folder.name / f"{n}.txt").read_text().split() for n in ("fit", "held_out"))
    assert len(fit) == 6
    assert len(held) == 2
    (tmp_path / "fit.txt").write_text("\n".join(fit))
    alone = run_calibrate(config(source=f"{coco_folder}@{tmp_path / 'fit'}", held_out=0.0, out=str(tmp_path / "alone")))
    assert load_exported(out).calibrator.temperature == load_exported(alone).calibrator.temperature
    assert content(alone)["record"]["held_out"] == {}


@pytest.mark.parametrize("whole", [False, True])
def test_a_head_and_an_ensemble_can_be_calibrated(config, backbone, tmp_path, whole):
    body = load_backbone(backbone)
    torch.manual_seed(3)
    head = build_head(BayesianConfig(), token_dim=body.token_dim, channels=body.channels)
    for model in (UncertainSam(body, head), UncertainSam(body, Ensemble(EnsembleConfig(flips=["horizontal"])))):
        posterior = model.head.config.posterior
        plain = tmp_path / posterior
        if whole:
            export_model(model, backbone_config(backbone), plain, with_backbone=True)
        else:
            export_with_backbone_beside(model, backbone_config(backbone), plain)
        out = run_calibrate(config(export=str(plain), kind="local", out=str(tmp_path / f"{posterior}_local"), **QUICK))
        loaded = load_exported(out)
        assert (loaded.head.config, loaded.calibrator.kind) == (model.head.config, "local")
        assert content(out)["backbone_included"]  # which has no name that others know
        image = open_dataset(config().source)[0].image
        both = []
        for folder in (plain, out):
            predictor = Predictor(folder, device="cpu")
            predictor.set_image(image)
            both.append(predictor.predict([[20, 15]], [1], decomposed=True))
        np.testing.assert_array_equal(both[0].masks, both[1].masks)
        assert not np.allclose(both[0].probability, both[1].probability, atol=1e-3)
        assert both[1].epistemic.max() > 1e-3
    with pytest.raises(RuacError, match="has a local calibration, expected a model without one"):
        run_calibrate(config(export=str(out), out=str(tmp_path / "again")))


def test_it_is_a_row_of_the_sweep(config, shelf, backbone, tmp_path):
    """Masks and clicks are vanilla's; a calibrator is no part of vanilla, and an oracle's name says what it is."""
    domain = str(shelf / "domains" / "first")
    source = run_calibrate(config(out=str(tmp_path / "source")))
    oracle = run_calibrate(config(source=None, targets=[domain], out=str(tmp_path / "oracle")))
    both = run_calibrate(config(targets=[domain], out=str(tmp_path / "all")))
    entries = [
        ModelConfig("vanilla", backbone=backbone),
        *(ModelConfig(name, export=str(folder)) for name, folder in (("ts", source), ("o", oracle), ("a", both))),
    ]
    half = f"{domain}@{oracle / 'splits' / 'first' / 'held_out'}"
    out = run_sweep(SweepConfig(models=entries, domains=[half], out=str(tmp_path / "sweep"), cpu=True, panels=0))
    rows = read_table(out / "domains.csv").set_index(["model", "region"])
    names = ["vanilla", "ts", "o (oracle)", "a (all)"]
    assert list(dict.fromkeys(rows.index.get_level_values(0))) == names
    assert set(rows.domain) == {"first@held_out"}
    assert rows.jf.nunique() == 1
    assert rows.loc[("ts", "band"), "ece"] != rows.loc[("vanilla", "band"), "ece"].iloc[0]
    manifest = {model["name"]: model for model in json.loads((out / "manifest.json").read_text())["models"]}
    assert manifest["vanilla"]["calibration"] is None
    assert manifest["o (oracle)"]["calibration"]["fitted_on"] == "oracle"
    assert manifest["a (all)"]["entry"]["export"] == str(both)
    assert [manifest[name]["kind"] for name in names] == ["vanilla", "temperature", "temperature", "temperature"]
    assert any("o (oracle)" in head for head in domain_table(out).heads)
    assert content(both)["record"]["splits"]["first"]["fit"]["images"] == 4


def test_another_backbone_or_resolution_is_refused(config, backbone, tmp_path):
    out = run_calibrate(config())
    text = Path(backbone).read_text()
    (tmp_path / "larger.yaml").write_text(text.replace("image_size: 96", "image_size: 128"))
    part = export_model(load_exported(out), backbone_config(backbone), tmp_path / "part", with_backbone=False)
    with pytest.raises(RuacError, match="fitted for image_size 96, expected 128"):
        load_exported(part, backbone=str(tmp_path / "larger.yaml"))
    other = Temperature()
    other.origin = replace(load_exported(out).calibrator.origin, model="0" * 64)
    other.save(out / "calibrator.safetensors")
    with pytest.raises(RuacError, match=r"calibrator\.safetensors: damaged or of another export"):
        load_exported(out)
    read_config(out).write(out)
    with pytest.raises(RuacError, match="fitted for model"):
        load_exported(out)
    (out / "calibrator.safetensors").unlink()
    with pytest.raises(RuacError, match=r"calibrator\.safetensors: not found; the export is not complete"):
        load_exported(out)


def test_stressed_answers_are_drawn_once_clean_and_once_attacked(config, coco_folder):
    made = config(kind="answer", draw="stressed", images=6, held_out=0.0, **QUICK)
    run_calibrate(made)
    (folder,) = Path(made.cache).iterdir()
    answers = CachedAnswers(folder)
    assert len(answers) == 12
    made.stress.attack = AttackConfig(kind="none")
    run_calibrate(made)
    folders = sorted(Path(made.cache).iterdir())
    assert sorted(len(CachedAnswers(folder)) for folder in folders) == [6, 12]
    assert {int(one.evidence.clicks.max()) for one in answers} <= {0, 1, 2, 3}
    pixels = torch.cat([one.pixels() for one in answers])
    assert torch.isfinite(pixels).all()


def test_the_older_verbs_are_calibrations(backbone, coco_folder, tmp_path):
    temperature = TemperatureFitConfig(source=f"{coco_folder}@train", backbone=backbone, cpu=True, pixels=500)
    temperature.validate()
    made = temperature.calibration()
    assert (made.kind, made.sampling.band_share, made.held_out) == ("temperature", 1.0, 0.0)
    words = [f"source={coco_folder}", "split=train", f"backbone={backbone}", f"out={tmp_path / 'l'}", "images=4"]
    main(["fit-local-temperature", *words, "steps=3", "batch=16", "cpu=true"])
    model = load_exported(tmp_path / "l")
    assert isinstance(model.calibrator.network, LocalTemperature)
    main(
        ["fit-temperature", f"source={coco_folder}@train", f"backbone={backbone}", f"out={tmp_path / 't'}", "cpu=true"]
    )
    assert load_exported(tmp_path / "t").calibrator.kind == "temperature"
    for made, message in (
        (TemperatureFitConfig(source="x", region="edge"), "band or image"),
        (TemperatureFitConfig(source="x", out="t.json"), "expected a folder"),
        (LocalTemperatureFitConfig(source="x"), "exactly one of export= and backbone="),
        (LocalTemperatureFitConfig(source="x", backbone="nano", rate=0.0), "expected above 0"),
    ):
        with pytest.raises(RuacError, match=message):
            made.validate()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "platt"}, r"unknown 'platt', did you mean"),
        ({"backbone": None}, "exactly one of"),
        ({"source": None}, "expected source=, or targets="),
        ({"draw": "guessed"}, "prompted or stressed"),
        ({"held_out": 1.0}, "a share below 1"),
        ({"images": -1}, "at least 0"),
    ],
)
def test_impossible_configs(values, message):
    given = {"kind": "temperature", "source": "x", "backbone": "nano"} | values
    with pytest.raises(RuacError, match=message):
        CalibrateConfig(**given).validate()


def test_bad_input_is_one_line_and_leaves_nothing(config, coco_folder, tmp_path, capsys, backbone):
    empty = tmp_path / "set"
    shutil.copytree(coco_folder, empty)
    (empty / "none.txt").write_text("\n")
    words = [f"backbone={backbone}", f"out={tmp_path / 'out'}", "cache=", "cpu=true"]
    for own, message in (
        (["kind=temperature", f"source={empty}@none"], "the split list is empty"),
        (["kind=temperature", f"source={tmp_path / 'nowhere'}"], "folder not found"),
        (["kind=temperature", f"source={empty}@val"], "expected at least 4"),
        (["kind=clustered", f"source={empty}"], "6 images to calibrate on, expected at least 16"),
        (["kind=temperature", f"source={empty}", "local.read=image"], "did you mean 'local.reads'"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["calibrate", *own, *words])
        error = capsys.readouterr().err
        assert stopped.value.code == 2
        assert error.count("\n") == 1
        assert message in error
        assert not (tmp_path / "out").exists()
