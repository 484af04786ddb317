"""Metrics of a few bins that can be worked out by hand."""

import numpy as np
import pytest

from ruac.evaluation.metrics.calibration import adaptive_ece, ece, ks, mce, reliability_curve
from ruac.evaluation.metrics.certainty import p_acc_cert, p_unc_inacc, pavpu, quadrants


def test_adaptive_bins_are_as_many_as_asked():
    """Where bins are of equal mass already, they are the adaptive ones; gaps that alternate cancel in any other."""
    count = np.full(15, 4)
    gap = np.tile([1.0, -1.0], 8)[:15]
    confidence = np.full(15, 3.0)
    assert ece(count, confidence + gap, confidence) == pytest.approx(15 / 60)
    assert adaptive_ece(count, confidence + gap, confidence) == pytest.approx(15 / 60)
    assert adaptive_ece(count, confidence + gap, confidence, bins=1) == pytest.approx(1 / 60)
    assert adaptive_ece(count, confidence + gap, confidence, bins=5) == pytest.approx(5 / 60)
    assert ks(count, confidence + gap, confidence) == pytest.approx(1 / 60)


def test_a_bin_of_one_pixel_counts_and_an_empty_one_does_not():
    count, correct, confidence = np.array([10, 0, 1]), np.array([9, 0, 0]), np.array([8.0, 0.0, 0.75])
    assert mce(count, correct, confidence) == pytest.approx(0.75)
    means, accuracy, share = reliability_curve(count, correct, confidence)
    np.testing.assert_allclose(means, [0.8, np.nan, 0.75])
    np.testing.assert_allclose(accuracy, [0.9, np.nan, 0.0])
    np.testing.assert_allclose(share, [10 / 11, 0, 1 / 11])


def test_quadrants_at_the_ends_and_between():
    correct, wrong, edges = np.array([5, 3, 1]), np.array([1, 2, 4]), np.array([0.0, 0.2, 0.6, 1.0])
    found = quadrants(correct, wrong, edges, np.array([-1.0, 0.0, 0.2, 0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(found.accurate_certain, [0, 0, 5, 8, 9, 9])
    np.testing.assert_array_equal(found.inaccurate_certain, [0, 0, 1, 3, 7, 7])
    np.testing.assert_array_equal(found.accurate_uncertain, [9, 9, 4, 1, 0, 0])
    np.testing.assert_array_equal(found.inaccurate_uncertain, [7, 7, 6, 4, 0, 0])
    middle = quadrants(correct, wrong, edges, 0.2)
    assert (p_acc_cert(middle), p_unc_inacc(middle), pavpu(middle)) == pytest.approx((5 / 6, 6 / 7, 11 / 16))
