"""Quantiles, sets and weights of pixels against TorchCP and puncc, asked place by place: neither knows pictures."""

import warnings

import numpy as np
import pytest
import torch

from ruac.conformal.pixel_scores import fit_pixel_thresholds, pixel_scores
from ruac.conformal.pixel_sets import prediction_sets
from ruac.conformal.quantile import weighted_quantile
from ruac.conformal.regions import RegionsConfig

NAMES = ["cat", "dog", "owl"]


@pytest.fixture
def pictures():
    """Probabilities ``[50, 3, 4, 5]`` and labels ``[50, 4, 5]``, and probabilities of another picture."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (51, 4, 5))
    odds = np.exp(2.0 * (labels[:, None] == np.arange(3)[None, :, None, None]) + rng.standard_normal((51, 3, 4, 5)))
    probability = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
    return probability[:-1], labels[:-1], probability[-1]


def ours(pictures, alpha, **options):
    probability, labels, new = pictures
    scores = np.stack([pixel_scores(p, own, NAMES) for p, own in zip(probability, labels, strict=True)])
    found = fit_pixel_thresholds(scores, labels, NAMES, alpha, RegionsConfig("location"), **options)
    return found.values, prediction_sets(new, found)


@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_torchcp_has_the_same_threshold_and_set_at_every_place(pictures, alpha):
    predictors = pytest.importorskip("torchcp.classification.predictor", reason="TorchCP is not installed")
    from torchcp.classification.score import LAC

    probability, labels, new = map(torch.from_numpy, pictures)
    thresholds, sets = ours(pictures, alpha)
    for y, x in np.ndindex(labels.shape[1:]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            theirs = predictors.SplitPredictor(LAC(score_type="identity"), alpha=alpha)
        theirs.calculate_threshold(probability[:, :, y, x], labels[:, y, x])
        assert thresholds[0, y, x] == pytest.approx(float(theirs.q_hat), abs=1e-7)
        assert sets[:, y, x].tolist() == theirs.predict_with_logits(new[None, :, y, x])[0].bool().tolist()


@pytest.mark.parametrize("alpha", [0.1, 0.25])
def test_puncc_has_the_same_threshold_and_set_at_every_place(pictures, alpha):
    calibration = pytest.importorskip("deel.puncc.api.calibration", reason="puncc is not installed")
    from deel.puncc.api.nonconformity_scores import lac_score
    from deel.puncc.api.prediction_sets import lac_set

    probability, labels, new = pictures
    thresholds, sets = ours(pictures, alpha)
    for y, x in np.ndindex(labels.shape[1:]):
        theirs = calibration.BaseCalibrator(nonconf_score_func=lac_score, pred_set_func=lac_set)
        theirs.fit(y_true=labels[:, y, x], y_pred=probability[:, :, y, x])
        threshold = float(np.ravel(theirs.compute_quantile(alpha=alpha))[0])
        assert thresholds[0, y, x] == pytest.approx(threshold, abs=1e-7)
        found = lac_set(new[None, :, y, x], scores_quantile=threshold)[0][0]
        assert np.flatnonzero(sets[:, y, x]).tolist() == sorted(int(k) for k in found)


def test_puncc_has_the_same_weighted_quantile():
    calibration = pytest.importorskip("deel.puncc.api.calibration", reason="puncc is not installed")
    rng = np.random.default_rng(1)
    for own in (0.1, 1.0, 30.0):  # the last leaves the new picture alone with most of the weight
        scores, weights = rng.random(40), np.exp(rng.standard_normal(40))
        theirs = calibration.BaseCalibrator(
            nonconf_score_func=lambda predicted, true: predicted - true, pred_set_func=lambda predicted, _: predicted
        )
        theirs.fit(y_true=np.zeros(40), y_pred=scores)
        share = np.append(weights, own) / (weights.sum() + own)
        assert weighted_quantile(scores, weights, own, 0.1) == pytest.approx(
            float(theirs.compute_quantile(alpha=0.1, weights=share))
        )
