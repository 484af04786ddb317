"""Bounds fitted through the prompts of a sweep, and used by predictor, sweep and report."""

import json

import numpy as np
import pandas as pd
import pytest
from accelerate.state import AcceleratorState

from ruac.base.config import load_config
from ruac.base.errors import RuacError
from ruac.cli import main
from ruac.conformal.bounds import load_bounds
from ruac.data.open import open_dataset
from ruac.data.sample import read_image
from ruac.evaluation.conformal.fit import ConformalConfig, image_losses, run_conformal
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.report import build_report
from ruac.evaluation.score import answer_image
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.runner import run_sweep
from ruac.inference.bounds import bounds_path, read_bounds
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import Predictor
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead

PROTOCOL = ProtocolConfig(clicks=2)
ALPHA = 0.2


@pytest.fixture(autouse=True)
def fresh():
    AcceleratorState._reset_state(reset_partial_state=True)


def config(shelf, coco_folder, **values):
    places = {"source": str(coco_folder), "export": str(shelf / "head"), "cpu": True, "protocol": PROTOCOL}
    return ConformalConfig(**(places | {"alpha": ALPHA} | values))


@pytest.fixture(scope="session")
def fitted(shelf, coco_folder, tmp_path_factory):
    AcceleratorState._reset_state(reset_partial_state=True)
    return run_conformal(config(shelf, coco_folder, out=str(tmp_path_factory.mktemp("bounds"))))


def test_the_file_holds_the_mean_losses_of_the_sweeps_own_answers(shelf, coco_folder, fitted):
    bounds, dataset = load_bounds(fitted), open_dataset(coco_folder)
    model = load_exported(shelf / "head")
    missed = []
    for sample in (dataset[n] for n in range(len(dataset))):
        p = answer_image({"": model}, sample, PROTOCOL)[""].probability.numpy()
        missed.append([(1 - (p[k] >= 0.5)[mask].mean()) for k, mask in enumerate(sample.masks)])
    assert bounds.images == len(dataset) == 8
    assert bounds.missed[0] == pytest.approx(np.mean([np.mean(own) for own in missed]), abs=1e-6)
    record = json.loads(fitted.read_text())["record"]
    assert record["protocol"]["clicks"] == 2
    assert {"source", "seed", "environment"} <= record.keys()


def test_fewer_images_are_drawn_and_recorded(shelf, coco_folder, tmp_path):
    whole = load_bounds(run_conformal(config(shelf, coco_folder, images=5, out=str(tmp_path / "a.json"))))
    other = load_bounds(run_conformal(config(shelf, coco_folder, images=5, seed=1, out=str(tmp_path / "b.json"))))
    assert whole.images == other.images == 5
    assert whole.record["source"]["sha256"] != other.record["source"]["sha256"]


def test_losses_do_not_depend_on_how_many_objects_are_asked_at_a_time(nano, coco_folder, monkeypatch):
    from ruac.evaluation import score

    sample, model = open_dataset(coco_folder)[1], UncertainSam(nano, None)
    together = image_losses(model, sample, PROTOCOL)
    monkeypatch.setattr(score, "BLOCK", 1)
    for a, b in zip(together, image_losses(model, sample, PROTOCOL), strict=True):
        assert a == pytest.approx(b, abs=2e-3)


def test_the_predictor_gives_inner_and_outer_masks(shelf, coco_folder, fitted):
    predictor = Predictor(shelf / "head", device="cpu", conformal=fitted)
    predictor.set_image(coco_folder / "images" / "0.png")
    asked = {"point_coords": np.array([[20.0, 18.0]]), "point_labels": np.array([1])}
    answer = predictor.predict(**asked, alpha=ALPHA)
    found = load_bounds(fitted).at(ALPHA)
    assert (answer.outer == (answer.probability >= np.float32(found.outer))).all()
    assert (answer.inner == (answer.probability >= np.float32(found.inner))).all()
    assert not (answer.inner & ~answer.outer).any()
    plain = predictor.predict(**asked)
    assert plain.inner is plain.outer is None
    assert (plain.masks == answer.masks).all()
    with pytest.raises(RuacError, match=r"8 images, but alpha=0.05 needs at least 19"):
        predictor.predict(**asked, alpha=0.05)
    with pytest.raises(RuacError, match=r"alpha: 1.5, expected"):
        predictor.predict(**asked, alpha=1.5)


def test_bounds_belong_to_the_looks_they_were_fitted_with(shelf, coco_folder, fitted, tmp_path):
    path = run_conformal(config(shelf, coco_folder, looks=["flip"], out=str(tmp_path)))
    predictors = {p: Predictor(shelf / "head", device="cpu", conformal=p) for p in (path, fitted)}
    asked = {"point_coords": np.array([[20.0, 18.0]]), "point_labels": np.array([1]), "alpha": ALPHA}
    for place, predictor in predictors.items():
        predictor.set_image(coco_folder / "images" / "0.png")
        for looks in (None, ["flip"]):
            if (looks is None) == (place == fitted):
                answer = predictor.predict(**asked, looks=looks)
                outer = np.float32(load_bounds(place).at(ALPHA).outer)
                assert (answer.outer == (answer.probability >= outer)).all()
            else:
                with pytest.raises(RuacError, match="fitted on another model"):
                    predictor.predict(**asked, looks=looks)


def test_bounds_of_another_model_or_resolution_are_refused(shelf, nano, make_nano, fitted):
    model = load_exported(shelf / "head")
    read_bounds(fitted, model)
    with pytest.raises(RuacError, match="fitted on another model"):
        read_bounds(fitted, UncertainSam(nano, None))
    with pytest.raises(RuacError, match="fitted on another input side"):
        read_bounds(fitted, UncertainSam(make_nano(96), model.head))
    heads = [TemperatureHead(TemperatureConfig(t)) for t in (1.0, 2.0)]
    bounds = load_bounds(fitted)
    assert bounds_path("some/folder").name == "conformal.json"
    from ruac.inference.bounds import bounds_identity

    assert bounds_identity(UncertainSam(nano, heads[0])) != bounds_identity(UncertainSam(nano, heads[1]))
    assert bounds.identity == bounds_identity(model)


def test_without_bounds_alpha_is_refused(nano, shelf):
    for predictor, message in (
        (Predictor(UncertainSam(nano, None), device="cpu"), "no conformal bounds"),
        (Predictor(shelf / "head", device="cpu"), "conformal.json: not found"),
    ):
        predictor.set_image(np.zeros((20, 20, 3), np.uint8))
        with pytest.raises(RuacError, match=message):
            predictor.predict(box=np.array([1, 1, 9, 9]), alpha=0.1)


def test_a_sweep_has_coverage_and_sizes_by_domain_and_the_report_shows_them(shelf, fitted, tmp_path):
    models = [
        ModelConfig("vanilla", backbone=str(shelf / "backbone.yaml")),
        ModelConfig("bound", export=str(shelf / "head"), conformal=str(fitted), alpha=ALPHA),
    ]
    asked = SweepConfig(
        models=models,
        domains=[str(shelf / "domains")],
        out=str(tmp_path),
        limit=3,
        cpu=True,
        panels=0,
        protocol=PROTOCOL,
    )
    run_sweep(asked)
    objects, table = pd.read_parquet(tmp_path / "objects.parquet"), pd.read_csv(tmp_path / "domains.csv")
    assert objects[objects.model == "vanilla"].coverage.isna().all()
    model, dataset, found = (
        load_exported(shelf / "head"),
        open_dataset(shelf / "domains" / "first"),
        load_bounds(fitted),
    )
    thresholds, expected = found.at(ALPHA), []
    for sample in (dataset[n] for n in range(3)):
        p = answer_image({"": model}, sample, PROTOCOL)[""].probability.numpy()
        inner, outer = thresholds(p)
        for k, mask in enumerate(sample.masks):
            expected.append(
                {
                    "image": sample.record.id,
                    "coverage": (outer[k] & mask).sum() / mask.sum(),
                    "purity": (inner[k] & mask).sum() / inner[k].sum() if inner[k].any() else 1,
                    "outer_size": outer[k].sum() / mask.sum(),
                    "inner_size": inner[k].sum() / mask.sum(),
                    "undecided": (outer[k] & ~inner[k]).mean(),
                }
            )
    expected = pd.DataFrame(expected)
    own = objects[(objects.model == "bound") & (objects.domain == "first")]
    for key in expected.columns[1:]:
        assert own[key].to_numpy() == pytest.approx(expected[key].to_numpy(), abs=2e-3)
    row = table[(table.model == "bound") & (table.domain == "first")].iloc[0]
    assert row.coverage == pytest.approx(expected.groupby("image").coverage.mean().mean(), abs=2e-3)
    assert row.outer_size == pytest.approx(expected.outer_size.median(), abs=2e-2)
    page = build_report(tmp_path).read_text(encoding="utf-8")
    assert 'id="conformal"' in page
    assert f"alpha {ALPHA}" in page


def test_a_report_without_bounds_has_no_such_section(shelf, tmp_path):
    models = [ModelConfig("vanilla", backbone=str(shelf / "backbone.yaml"))]
    asked = SweepConfig(models=models, domains=[str(shelf / "domains")], out=str(tmp_path), limit=1, cpu=True, panels=0)
    assert 'id="conformal"' not in build_report(run_sweep(asked)).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["alpha=0"], "alpha: 0.0, expected a number between 0 and 1"),
        (["alpha=0.01"], "8 images, but alpha=0.01 needs at least 99"),
        (["images=2"], "2 images, but alpha=0.2 needs at least 4"),
        (["bounds.level=pixel"], "level: 'pixel', expected share or mask"),
        (["bounds.delta=1"], "delta"),
        (["protocol.next_click=replay"], "expected own_error"),
        (["bound.level=mask"], "bounds"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(shelf, coco_folder, tmp_path, capsys, values, message):
    base = [f"source={coco_folder}", f"export={shelf / 'head'}", "alpha=0.2", "cpu=true", f"out={tmp_path / 'c.json'}"]
    with pytest.raises(SystemExit) as stopped:
        main(["conformal", *base, *values])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stopped.value.code == 2
    assert message in error
    assert not list(tmp_path.iterdir())


def test_a_model_and_a_place_are_needed(coco_folder):
    with pytest.raises(RuacError, match="expected export="):
        load_config(ConformalConfig, None, [f"source={coco_folder}"])
    with pytest.raises(RuacError, match="out= is missing"):
        load_config(ConformalConfig, None, [f"source={coco_folder}", "backbone=nano"])


def test_predict_writes_both_masks(shelf, coco_folder, fitted, tmp_path, capsys):
    picture = coco_folder / "images" / "0.png"
    argv = [str(picture), "--point", "20", "18", "--model", str(shelf / "head"), "--out", str(tmp_path / "o.png")]
    main(["predict", *argv, "--alpha", "0.2", "--conformal", str(fitted), "--save", str(tmp_path)])
    assert "alpha 0.2: inner mask" in capsys.readouterr().out
    masks = {name: read_image(tmp_path / f"0.{name}.png")[..., 0] > 0 for name in ("inner", "outer")}
    assert masks["outer"].sum() >= masks["inner"].sum()
    assert not (masks["inner"] & ~masks["outer"]).any()
    assert json.loads((tmp_path / "0.json").read_text())["files"]["outer"] == "0.outer.png"
