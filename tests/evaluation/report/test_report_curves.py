"""Curves over pixels: reliability, risk and PAvPU, of one domain and of all, against their definitions."""

import numpy as np
import pytest

from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.report.curves import THRESHOLDS, Counts, _lines, curve_charts
from ruac.evaluation.results.load import Entry, load_results

ENTRY = Entry("m", "total", "m", 0, 0)


@pytest.fixture
def pixels():
    """p, u, truth and mask of pixels that are more often wrong where u is large."""
    rng = np.random.default_rng(0)
    p = rng.uniform(size=5000) ** 2
    truth = rng.uniform(size=5000) < p
    return {"probability": p, "uncertainty": 1 - np.abs(2 * p - 1), "target": truth, "prediction": p > 0.5}


def counts_of(pixels):
    sums = ReliabilitySums()
    sums.update(**pixels)
    return Counts(np.array(sums.confidence_bins()), sums.uncertainty)


def test_pavpu_curve_is_the_share_of_pixels_that_are_right_and_certain_or_wrong_and_uncertain(pixels):
    _, _, curve = _lines(ENTRY, counts_of(pixels))
    right, u = pixels["target"] == pixels["prediction"], pixels["uncertainty"]
    expected = [np.mean(right == (u <= t)) for t in THRESHOLDS]
    np.testing.assert_allclose(curve.y, expected, atol=1e-3)
    assert curve.y[-1] == pytest.approx(right.mean())  # all pixels are certain: the accuracy
    assert curve.y[0] == pytest.approx(1 - right.mean(), abs=0.01)  # none is


def test_risk_curve_is_the_error_rate_of_the_most_certain_pixels(pixels):
    _, curve, _ = _lines(ENTRY, counts_of(pixels))
    order = np.argsort(pixels["uncertainty"], kind="stable")
    wrong = (pixels["target"] != pixels["prediction"])[order]
    for coverage in (0.25, 0.5, 1.0):
        kept = wrong[: round(coverage * len(wrong))]
        assert np.interp(coverage, curve.x, curve.y) == pytest.approx(100 * kept.mean(), abs=0.3)


def test_all_domains_weigh_the_same_whatever_their_size(pixels):
    few = {key: values[:400] for key, values in pixels.items()}
    few["target"] = ~few["target"]
    both = counts_of(few).shares() + counts_of(pixels).shares()
    alone = [_lines(ENTRY, counts_of(p))[2].y for p in (few, pixels)]
    np.testing.assert_allclose(_lines(ENTRY, both)[2].y, np.mean(alone, axis=0))


def test_the_first_charts_are_of_all_unseen_domains(results, copy, edit):
    loaded = load_results(results)
    assert [c.domain for c in curve_charts(loaded, "band")] == [None, *loaded.domains]
    edit(lambda table: table.assign(reference=table.domain == "camvid"))
    less = load_results(copy)
    charts = curve_charts(less, "band")
    assert [c.domain for c in charts] == [None, "camvid", *less.domains]
    assert charts[0].pavpu != curve_charts(loaded, "band")[0].pavpu  # a reference is not among all domains
