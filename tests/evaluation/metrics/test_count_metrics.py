"""Metrics from counts against sorted pixels, scikit-learn and known identities."""

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from ruac.evaluation.metrics import calibration, certainty, correlation, ranking


def _counts(u, wrong):
    """One bin per distinct value: the metrics are then exact."""
    values, index = np.unique(u, return_inverse=True)
    return tuple(np.bincount(index[w], minlength=len(values)) for w in (~wrong, wrong)), values


@pytest.fixture(params=["distinct", "tied"])
def pixels(request):
    rng = np.random.default_rng(3)
    wrong = rng.random(5000) < 0.2
    u = rng.beta(1, 4, 5000) + 0.2 * wrong * rng.random(5000)
    return (u if request.param == "distinct" else np.round(u, 1)), wrong


def test_ranking_matches_scikit_learn(pixels):
    (correct, wrong), _ = _counts(*pixels)
    u, label = pixels
    assert ranking.auroc(correct, wrong) == pytest.approx(sk.roc_auc_score(label, u), abs=1e-12)
    assert ranking.aupr(correct, wrong) == pytest.approx(sk.average_precision_score(label, u), abs=1e-12)
    fpr, tpr, _ = sk.roc_curve(label, u, drop_intermediate=False)
    assert ranking.fpr_at_tpr(correct, wrong) == pytest.approx(fpr[tpr >= 0.95].min(), abs=1e-12)


def test_aurc_is_the_mean_over_random_orders_of_ties(pixels):
    u, label = pixels
    (correct, wrong), _ = _counts(u, label)
    rng = np.random.default_rng(4)
    draws = []
    for _ in range(200):
        order = np.lexsort((rng.random(len(u)), u))
        draws.append((np.cumsum(label[order]) / np.arange(1, len(u) + 1)).mean())
    error = np.std(draws) / np.sqrt(len(draws))
    assert ranking.aurc(correct, wrong) == pytest.approx(np.mean(draws), abs=5 * error + 1e-12)
    oracle = (np.cumsum(np.sort(label)) / np.arange(1, len(u) + 1)).mean()
    assert ranking.oracle_aurc(correct, wrong) == pytest.approx(oracle, abs=1e-12)
    assert ranking.e_aurc(correct, wrong) == pytest.approx(np.mean(draws) - oracle, abs=5 * error + 1e-12)
    assert ranking.ause(correct, wrong) == pytest.approx(ranking.e_aurc(correct, wrong) / label.mean())
    coverage, risk = ranking.risk_coverage_curve(correct, wrong)
    half = np.searchsorted(coverage, 0.5)
    assert risk[half] == pytest.approx(label[u <= np.sort(u)[round(coverage[half] * len(u)) - 1]].mean())
    assert (coverage[-1], risk[-1]) == (1, pytest.approx(label.mean()))


def test_prr_is_the_gini_of_the_roc(pixels):
    # For 0/1 errors the ratio of areas equals 2 AUROC - 1 (the accuracy ratio of a cumulative gain curve).
    (correct, wrong), _ = _counts(*pixels)
    assert ranking.prr(correct, wrong) == pytest.approx(100 * (2 * ranking.auroc(correct, wrong) - 1), abs=1e-9)
    oracle = np.array([correct.sum(), 0]), np.array([0, wrong.sum()])
    assert ranking.prr(*oracle) == pytest.approx(100)
    assert ranking.prr(correct.sum(keepdims=True), wrong.sum(keepdims=True)) == pytest.approx(0)


def test_calibration_against_sorted_pixels():
    rng = np.random.default_rng(5)
    confidence = rng.uniform(0.5, 1, 6000)
    right = rng.random(6000) < confidence**2
    (miss, hit), values = _counts(confidence, right)
    bins = (hit + miss, hit, (hit + miss) * values)
    order = np.argsort(confidence)
    parts = zip(np.array_split(confidence[order], 15), np.array_split(right[order], 15), strict=True)
    adaptive = sum(abs(c.mean() - r.mean()) * len(c) for c, r in parts) / 6000
    assert calibration.adaptive_ece(*bins) == pytest.approx(adaptive, abs=1e-12)
    gap = np.abs(np.cumsum(right[order] - confidence[order])).max() / 6000
    assert calibration.ks(*bins) == pytest.approx(gap, abs=1e-12)
    bins = (np.array([0, 10, 30]), np.array([0, 4, 30]), np.array([0, 6.0, 27.0]))
    assert calibration.ece(*bins) == pytest.approx((2 + 3) / 40)
    assert calibration.mce(*bins) == pytest.approx(0.2)
    mean, share_right, mass = calibration.reliability_curve(*bins)
    np.testing.assert_allclose(mean, [np.nan, 0.6, 0.9])
    np.testing.assert_allclose(share_right, [np.nan, 0.4, 1])
    np.testing.assert_allclose(mass, [0, 0.25, 0.75])


def test_quadrants_count_pixels_above_the_threshold(pixels):
    u, label = pixels
    (correct, wrong), values = _counts(u, label)
    edges = np.concatenate([[values[0] - 1], values])  # upper edge of a bin: its value
    thresholds = values[[3, 7]]
    counts = certainty.quadrants(correct, wrong, edges, thresholds)
    for i, t in enumerate(thresholds):
        expected = [(~label & (u <= t)), (~label & (u > t)), (label & (u <= t)), (label & (u > t))]
        assert [c[i] for c in counts] == [e.sum() for e in expected]
        assert certainty.p_acc_cert(counts)[i] == pytest.approx((~label)[u <= t].mean())
        assert certainty.p_unc_inacc(counts)[i] == pytest.approx((u > t)[label].mean())
        assert certainty.pavpu(counts)[i] == pytest.approx((label == (u > t)).mean())
    median = certainty.median_edge(correct, wrong, edges)
    assert (u <= median).mean() >= 0.5 > (u < median).mean() - 1e-3


TERMS = ("miou", "ece", "p_acc_cert", "p_unc_inacc")


def test_rss_tables_of_the_paper():
    """All 90 rows of tables 1 to 3 of the RSS paper, within what rounding to three digits can do."""
    with open(Path(__file__).parent / "rss_tables.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [sum(row["table"] == t for row in rows) for t in "123"] == [50, 20, 20]
    for row in rows:
        terms = {name: float(row[name]) for name in TERMS}
        score = certainty.rss(**terms)
        slope = sum((score / x) ** 2 / 4 for x in (terms["miou"], 1 - terms["ece"], *list(terms.values())[2:]))
        assert abs(score - float(row["rss"])) <= 5e-4 * (1 + slope) + 1e-9, row


def test_rss_is_a_weighted_harmonic_mean():
    row = dict(miou=0.736, ece=0.016, p_acc_cert=0.880, p_unc_inacc=0.663)
    assert round(certainty.rss(**row), 3) == 0.797
    terms = [0.736, 1 - 0.016, 0.880, 0.663]
    for weights in ((1, 1, 1, 1), (1, 1 / 3, 1 / 3, 1 / 3), (2, 0, 1, 1)):
        assert certainty.rss(**row, weights=weights) == pytest.approx(stats.hmean(terms, weights=weights), abs=1e-12)
    assert certainty.rss(**{**row, "p_unc_inacc": 0.0}) == 0
    assert np.isnan(certainty.rss(**{**row, "p_unc_inacc": float("nan")}))
    for weights in ((0, 0, 0, 0), (1, 1, 1), (1, -1, 1, 1)):
        with pytest.raises(ValueError, match="weights"):
            certainty.rss(**row, weights=weights)


@pytest.mark.parametrize("bins", [8, 64, 512])
def test_spearman_is_within_its_stated_bound(bins):
    rng = np.random.default_rng(6)
    x = rng.gamma(0.5, size=20_000)
    y = 0.5 * x + rng.gamma(0.5, size=20_000)
    counts, *_ = np.histogram2d(x, y, bins=[np.quantile(v, np.linspace(0, 1, bins + 1)) for v in (x, y)])
    a, b = (np.sqrt(((counts.sum(axis) / len(x)) ** 3).sum()) for axis in (1, 0))
    error = abs(correlation.spearman(counts) - stats.spearmanr(x, y).statistic)
    assert error <= a + b + a * b
    assert error <= 3 * (a + b) ** 2
    ties = np.round(3 * x), np.round(2 * y)  # one value to a bin: exact
    counts, *_ = np.histogram2d(*ties, bins=[np.arange(v.max() + 2) - 0.5 for v in ties])
    assert correlation.spearman(counts) == pytest.approx(stats.spearmanr(*ties).statistic, abs=1e-12)
    assert np.isnan(correlation.spearman(counts.sum(1, keepdims=True)))


def test_no_value_is_nan_and_not_a_number():
    none, some = np.zeros(4, int), np.array([1, 2, 0, 3])
    for metric in (ranking.auroc, ranking.aupr, ranking.fpr_at_tpr, ranking.prr):
        for pair in ((none, none), (some, none), (none, some)):
            assert np.isnan(metric(*pair)), metric.__name__
    for metric in (ranking.accuracy, ranking.aurc, ranking.e_aurc, ranking.ause):
        assert np.isnan(metric(none, none)), metric.__name__
    assert ranking.aurc(some, none) == 0
    assert ranking.aurc(none, some) == pytest.approx(1)
    assert np.isnan(ranking.ause(some, none))
    for metric in (calibration.ece, calibration.mce, calibration.adaptive_ece, calibration.ks):
        assert np.isnan(metric(none, none, none)), metric.__name__
    assert all(len(axis) == 0 for axis in ranking.risk_coverage_curve(none, none))
    assert np.isnan(correlation.pearson(10, 5, 5, 3, 3, 3, scale=1))
