"""The radar: what its axes mean, and where its lines are."""

from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from ruac.evaluation.report.overview import gain, radar
from ruac.evaluation.report.svg import Series, radar_chart
from ruac.evaluation.results.load import load_results
from ruac.evaluation.results.names import COLUMNS, RADAR


@pytest.fixture
def loaded(results):
    return load_results(results)


def changed(loaded, model, key, change):
    values = loaded.values.copy()
    rows = values.index.get_level_values("model") == model
    values.loc[rows, key] = change(values.loc[rows, key])
    return replace(loaded, values=values)


@pytest.mark.parametrize(("key", "perfect"), [("jf", 1.0), ("ece", 0.0), ("prr", 100.0), ("auroc", 1.0)])
def test_gain_is_the_share_of_the_distance_to_perfect_that_is_closed(loaded, key, perfect):
    entry = next(e for e in loaded.entries if e.model == "ruac")
    theirs = loaded.series(COLUMNS[key], loaded.entries[0], "band")
    ours = loaded.series(COLUMNS[key], entry, "band")
    expected = (ours.mean() - theirs.mean()) / (perfect - theirs.mean())
    assert gain(loaded, COLUMNS[key], entry, "band") == pytest.approx(expected)
    assert gain(loaded, COLUMNS[key], loaded.entries[0], "band") == 0
    assert gain(changed(loaded, "ruac", key, lambda v: perfect + 0 * v), COLUMNS[key], entry, "band") == 1


def test_gain_is_over_domains_that_have_both_values(loaded):
    entry = next(e for e in loaded.entries if e.model == "ruac")
    few = changed(loaded, "ruac", "ece", lambda v: v.where(v.index.get_level_values("domain") == "leaves"))
    ours, theirs = (loaded.series(COLUMNS["ece"], e, "band")[-1] for e in (entry, loaded.entries[0]))
    assert gain(few, COLUMNS["ece"], entry, "band") == pytest.approx(1 - ours / theirs)
    assert np.isnan(gain(changed(loaded, "ruac", "ece", lambda v: v * np.nan), COLUMNS["ece"], entry, "band"))


def test_radar_has_a_line_per_model_and_links_its_axes(loaded):
    svg = ElementTree.fromstring(str(radar(loaded, "band")))
    lines = [p for p in svg.iter("path") if "curve" in p.get("class").split()]
    assert [p.find("title").text for p in lines] == ["vanilla", "ruac"]
    assert [a.get("href") for a in svg.iter("a")] == [f"#metric-{key}" for key in RADAR]


def test_no_radar_of_one_model(loaded):
    manifest = loaded.manifest | {"models": loaded.manifest["models"][:1]}
    assert radar(replace(loaded, manifest=manifest), "band") is None


def test_radar_runs_from_the_centre_clockwise_and_leaves_out_what_is_missing():
    y = np.array([1.0, 0.0, -5.0, np.nan])
    spokes = [(name, f"#{name}") for name in "abcd"]
    svg = radar_chart(
        spokes, [Series(label="s", x=np.zeros(4), y=y)], limit=1, rings={0.0: "0"}, description="d", size=(400, 300)
    )
    dots = [c for c in ElementTree.fromstring(str(svg)).iter("circle")]
    radius = 0.36 * 300
    places = np.array([(float(c.get("cx")) - 200, float(c.get("cy")) - 150) for c in dots])
    np.testing.assert_allclose(places, [(0, -radius), (radius / 2, 0), (0, 0)], atol=0.06)
    assert dots[2].find("title").text == "s, c: -500.0 %"
    assert "nan" not in svg
