"""A temperature by agreement of looks: right where disagreement is error, harmless to ranks, and marked."""

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from ruac.base.errors import RuacError
from ruac.studies.experiments import adaptation
from ruac.studies.experiments.adaptation import (
    COLDEST,
    HOTTEST,
    AdaptationConfig,
    BandPixels,
    best_temperature,
    measure,
    run_adaptation,
    temperature_of,
)


def drawn(scale, rate, count=40_000, seed=0):
    """Calibrated at temperature `scale`; looks disagree `rate` times as often as they are wrong, anywhere."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(0, 3, count)
    truth = rng.random(count) < expit(logit / scale)
    apart = rng.random(count) < rate * ((logit > 0) != truth).mean()
    return BandPixels(logit, truth, apart, np.arange(count) % 2)


def test_the_temperature_is_found_without_labels_where_disagreement_is_error():
    source, target = drawn(1.0, 0.8), drawn(2.5, 0.8, seed=1)
    rows = {row["row"]: row for row in measure("d", target, source)}
    assert rows["oracle"]["temperature"] == pytest.approx(2.5, rel=0.05)
    assert rows["adapted"]["temperature"] == pytest.approx(2.5, rel=0.1)
    assert rows["source"]["temperature"] == pytest.approx(1.0, rel=0.05)
    assert rows["adapted"]["ece"] < 0.02 < 0.1 < rows["none"]["ece"]
    assert rows["oracle"]["nll"] <= rows["adapted"]["nll"] < rows["none"]["nll"]
    # and it does harm where looks agree on what is wrong
    fooled = {row["row"]: row for row in measure("d", drawn(2.5, 0.1, seed=2), source)}
    assert fooled["adapted"]["nll"] > fooled["none"]["nll"]


def test_a_temperature_is_that_of_the_expected_error_and_stays_in_bounds():
    pixels = drawn(1.0, 1.0)
    for temperature in (0.3, 1.0, 4.0):
        expected = expit(-np.abs(pixels.logit) / temperature).mean()
        assert temperature_of(pixels, expected) == pytest.approx(temperature, rel=1e-6)
    assert temperature_of(pixels, 0.0) == COLDEST
    assert temperature_of(pixels, 0.5) == HOTTEST
    assert best_temperature(pixels) == pytest.approx(1.0, rel=0.05)


def test_a_run_has_four_rows_a_domain_and_says_that_it_used_the_target(shelf, coco_folder, tmp_path):
    config = AdaptationConfig(
        export=str(shelf / "head"),
        source=str(coco_folder),
        split=None,
        domains=[str(shelf / "domains")],
        images=2,
        source_images=2,
        pixels=40,
        look="flip",
        out=str(tmp_path),
        cpu=True,
    )
    table = pd.read_csv(run_adaptation(config) / "adaptation.csv")
    assert table.row.tolist() == ["none", "source", "adapted", "oracle"] * 2
    assert json.loads((tmp_path / "adaptation.json").read_text())["uses_target_images"] is True
    assert (table[table.row == "none"].temperature == 1).all()


def test_a_domain_whose_objects_fill_their_pictures_is_left_out_and_named(
    shelf, coco_folder, tmp_path, monkeypatch, capsys
):
    pixels = drawn(1.0, 0.8, count=400)
    found = {"first": None, "second": pixels}
    monkeypatch.setattr(adaptation, "band_pixels", lambda data, *_: found.get(data.name, pixels))
    config = AdaptationConfig(
        export=str(shelf / "head"),
        source=str(coco_folder),
        split=None,
        domains=[str(shelf / "domains")],
        out=str(tmp_path),
    )
    run_adaptation(config)
    assert json.loads((tmp_path / "adaptation.json").read_text())["left_out"] == ["first"]
    assert "looked at again: first" in capsys.readouterr().out
    found["second"] = None
    with pytest.raises(RuacError, match="small enough to be looked at again"):
        run_adaptation(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "domains: expected at least one"),
        ({"domains": ["d"], "images": 1}, "images 1: expected at least 2"),
        ({"domains": ["d"], "source_images": 1}, "source_images 1: expected at least 2"),
        ({"domains": ["d"], "pixels": 0}, "pixels 0: expected at least 1"),
        ({"domains": ["d"], "look": "squint"}, "squint"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(RuacError, match=message):
        AdaptationConfig(export="e", source="s", **settings).validate()
