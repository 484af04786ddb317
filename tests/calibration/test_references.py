"""Isotonic regression, beta calibration and histogram binning against the libraries that define them."""

import numpy as np
import pytest
import torch
from betacal import BetaCalibration
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression

from ruac.base.errors import RuacError
from ruac.calibration import Answers
from ruac.calibration.binning import Beta, BinningConfig, Histogram, Isotonic

FREE = BinningConfig(keep_masks=False)


@pytest.fixture
def drawn(pixels):
    one = pixels(2.0, 30_000, offset=0.7)
    return one, one.logits.reshape(-1).double().numpy(), one.truth.numpy()


def probability(calibrator, logits):
    return calibrator.apply(torch.from_numpy(logits)[None, None, None].float()).double().sigmoid().numpy().reshape(-1)


def test_isotonic_is_scikit_learns(drawn):
    """Which sees every pixel, where ours sees bins of 1/64: steps move by no more than that."""
    one, logits, truth = drawn
    calibrator = Isotonic(FREE)
    calibrator.fit([one])
    reference = IsotonicRegression(out_of_bounds="clip").fit(logits, truth)
    grid = np.linspace(-12, 12, 400)
    difference = np.abs(probability(calibrator, grid) - reference.predict(grid))
    assert difference.mean() < 0.004
    assert np.all(np.diff(probability(calibrator, grid)) >= 0)
    half = 0.5 / len(truth)
    assert probability(calibrator, np.array([-99.0, 99.0])) == pytest.approx([half, 1 - half], rel=0.02, abs=1e-4)


def test_holding_masks_is_the_constrained_optimum(drawn):
    """Against isotonic regressions of either side of 0 alone, bounded by 1/2."""
    one, logits, truth = drawn
    calibrator = Isotonic()
    calibrator.fit([one])
    for side, bounds in ((logits > 0, (0.5, 1)), (logits < 0, (0, 0.5))):
        reference = IsotonicRegression(y_min=bounds[0], y_max=bounds[1], out_of_bounds="clip")
        reference.fit(logits[side], truth[side])
        difference = np.abs(probability(calibrator, logits[side]) - reference.predict(logits[side]))
        assert difference.mean() < 0.004


def test_beta_is_its_authors(drawn):
    one, logits, truth = drawn
    calibrator = Beta(FREE)
    calibrator.fit([one])
    reference = BetaCalibration(parameters="abm").fit(expit(logits)[:, None], truth)
    grid = np.linspace(-10, 10, 200)
    np.testing.assert_allclose(probability(calibrator, grid), reference.predict(expit(grid)), atol=2e-3)


def test_beta_without_a_negative_slope(drawn):
    """Truth that falls where p rises below 1/2: the free regression would turn one side around."""
    logits = 3 * torch.randn(30_000)
    truth = torch.rand(30_000) < torch.where(logits > 0, logits, -logits).sigmoid()
    calibrator = Beta(FREE)
    calibrator.fit([Answers.of(logits, truth)])
    assert (calibrator.coefficients[:2] >= 0).all()
    assert (calibrator.coefficients[:2] == 0).sum() == 1
    grid = torch.linspace(-8, 8, 100)
    assert (calibrator.apply(grid).diff() >= 0).all()


def test_histogram_is_the_share_in_each_bin(drawn):
    one, logits, truth = drawn
    calibrator = Histogram(FREE)
    calibrator.fit([one])
    p = expit(logits)
    for k in range(20):
        inside = (p >= k / 20) & (p < (k + 1) / 20)
        expected = (truth[inside].sum() + 0.5) / (inside.sum() + 1)
        # A bin of the logit's histogram may lie across the edge of one of these.
        found = probability(calibrator, np.array([logit((k + 0.5) / 20)]))
        assert found == pytest.approx(expected, abs=0.01)


def test_pixels_of_one_kind_teach_nothing():
    with pytest.raises(RuacError, match="isotonic: 50 pixels of one kind only"):
        Isotonic().fit([Answers.of(torch.randn(50), torch.ones(50))])
