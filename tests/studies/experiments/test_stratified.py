"""Measures against scikit-learn and scipy, the distance control against maps that know the distance only."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import roc_auc_score

from ruac.studies.experiments.bootstrap import interval, resampling_weights, weighted_mean
from ruac.studies.experiments.stratified import EDGES, STRATA, contour_distance, measure, strata


def run(score, target, photograph=None, stratum=None, replicates=0):
    score, target = np.asarray(score, float), np.asarray(target, float)
    photograph = np.zeros(len(score), int) if photograph is None else photograph
    stratum = np.zeros(len(score), int) if stratum is None else stratum
    weights = resampling_weights(photograph.max() + 1, replicates, 0)
    return measure(score, target, photograph=photograph, stratum=stratum, weights=weights)


def sample(rng, pixels=4000, photographs=3):
    """Levels of disagreement as people make them, and a score with some of it in it."""
    target = rng.choice([0, 0, 0.5, 0.8, 1], pixels)
    score = rng.random(pixels) ** 2 + 0.3 * target
    return score, target, rng.integers(0, photographs, pixels)


def test_measures_agree_with_scipy_and_scikit_learn():
    score, target, photograph = sample(np.random.default_rng(0))
    found = run(score, target, photograph)
    references = {
        "pearson": lambda s, t: pearsonr(s, t).statistic,
        "spearman": lambda s, t: spearmanr(s, t).statistic,
        "auroc": lambda s, t: roc_auc_score(t > 0, s),
    }
    for name, reference in references.items():
        tolerance = 2e-3 if name == "auroc" else 1e-9  # bins
        assert found[name, "pooled", False][0] == pytest.approx(reference(score, target), abs=tolerance)
        alone = [reference(score[photograph == k], target[photograph == k]) for k in range(3)]
        assert found[name, "photograph", False][0] == pytest.approx(np.mean(alone), abs=tolerance)


def test_controlled_measures_agree_with_brute_force():
    rng = np.random.default_rng(1)
    stratum = rng.integers(0, 5, 600)
    target = (rng.random(600) < 0.1 + 0.15 * stratum) * rng.choice([0.5, 1.0], 600)
    score = stratum + rng.integers(0, 8, 600) / 4 + 0.3 * target
    found = run(score, target, stratum=stratum)
    residual = [
        np.array([v - values[stratum == s].mean() for v, s in zip(values, stratum, strict=True)])
        for values in (score, target)
    ]
    assert found["pearson", "pooled", True][0] == pytest.approx(pearsonr(*residual).statistic, abs=1e-9)
    concordant = pairs = 0
    for s in range(5):
        positive, negative = (score[(stratum == s) & ((target > 0) == sign)] for sign in (True, False))
        difference = positive[:, None] - negative
        concordant += (difference > 0).sum() + 0.5 * (difference == 0).sum()
        pairs += difference.size
    assert found["auroc", "pooled", True][0] == pytest.approx(concordant / pairs, abs=1e-9)


def disk(radius, centre=(40, 40), side=81):
    y, x = np.mgrid[:side, :side]
    return np.hypot(y - centre[0], x - centre[1]) <= radius


def test_a_map_of_the_distance_knows_nothing_beyond_it():
    mask = disk(24)
    distance = contour_distance(mask)
    band = (distance <= 5).ravel()
    disputed = (distance <= 2) & (np.random.default_rng(0).random(mask.shape) < 0.7)
    stratum = strata(mask, distance).ravel()[band]
    found = run(1 / distance.ravel()[band], disputed.ravel()[band], stratum=stratum)
    assert found["auroc", "pooled", False][0] > 0.8
    assert found["spearman", "pooled", False][0] > 0.4
    for aggregation in ("pooled", "photograph"):
        assert found["auroc", aggregation, True][0] == 0.5
        assert found["pearson", aggregation, True][0] == found["spearman", aggregation, True][0] == 0
    informed = disputed + 1 / distance
    found = run(informed.ravel()[band], disputed.ravel()[band], stratum=stratum)
    assert found["auroc", "pooled", True][0] == 1


def test_perfect_constant_and_undefined():
    target = np.repeat([0.0, 0.6, 1.0], 50)
    perfect, constant, undisputed = run(target, target), run(np.full(150, 0.3), target), run(target, np.zeros(150))
    for aggregation in ("pooled", "photograph"):
        assert perfect["auroc", aggregation, False][0] == 1
        assert perfect["pearson", aggregation, False][0] == pytest.approx(1)
        assert perfect["spearman", aggregation, False][0] == pytest.approx(1)
        assert constant["auroc", aggregation, False][0] == 0.5
        assert constant["pearson", aggregation, False][0] == 0
        assert np.isnan(undisputed["auroc", aggregation, False][0])
        assert np.isnan(undisputed["pearson", aggregation, False][0])


def test_contour_distance_and_strata():
    rng = np.random.default_rng(2)
    mask = rng.random((12, 15)) < 0.6
    points = np.argwhere(np.ones_like(mask))
    table = cdist(points, points)
    table[mask.ravel()[:, None] == mask.ravel()] = np.inf
    np.testing.assert_allclose(contour_distance(mask).ravel(), table.min(axis=1))
    assert np.isinf(contour_distance(np.ones((3, 3), bool))).all()
    place = strata(mask, contour_distance(mask))
    assert ((place % 2 == 1) == mask).all()
    near = disk(24)
    distance = contour_distance(near)
    found = strata(near, distance)
    for value in np.unique(found[distance <= 5]):
        assert len(np.unique(distance[found == value].round(6))) == 1
    assert strata(near, np.full(near.shape, np.inf)).max() == STRATA - 1
    assert (np.diff(EDGES) > 0).all()


def test_bootstrap_replicates_are_those_of_the_resampled_photographs():
    rng = np.random.default_rng(3)
    score, target, photograph = sample(rng, photographs=4)
    weights = resampling_weights(4, 20, 7)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 4).all()
    found = measure(score, target, photograph=photograph, stratum=np.zeros(len(score), int), weights=weights)
    for row in (1, 5):
        rows = np.concatenate([np.tile(np.flatnonzero(photograph == k), int(weights[row, k])) for k in range(4)])
        assert found["pearson", "pooled", False][row] == pytest.approx(pearsonr(score[rows], target[rows]).statistic)
        auroc = roc_auc_score(target[rows] > 0, score[rows])
        assert found["auroc", "pooled", False][row] == pytest.approx(auroc, abs=2e-3)


def test_weighted_mean_and_interval():
    sums, counts = np.array([[2.0, 4.0], [9.0, 3.0]]), np.array([2, 3])
    np.testing.assert_allclose(weighted_mean(np.array([[1, 1], [2, 0]]), sums, counts), [[11 / 5, 7 / 5], [1, 2]])
    values = np.concatenate([[99.0], np.arange(101)])[:, None] + np.array([0.0, np.nan])
    low, high = interval(values)
    assert (low[0], high[0]) == pytest.approx((2.5, 97.5))
    assert np.isnan(low[1])
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(60):  # the interval of a mean of 40 units covers the truth about 95 times of 100
        units = rng.normal(size=40)
        low, high = interval(weighted_mean(resampling_weights(40, 300, seed), units, np.ones(40)))
        covered += low <= 0 <= high
    assert covered >= 50
