"""The finite-sample quantile: its definition, what it covers, and what is too little for it."""

import math

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.conformal.quantile import check_enough, conformal_quantile, images_needed, weighted_quantile


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 1 / 3, 0.5])
def test_needed_is_where_the_quantile_becomes_finite(alpha):
    needed = images_needed(alpha)
    rng = np.random.default_rng(0)
    assert np.isfinite(conformal_quantile(rng.random(needed), alpha))
    assert conformal_quantile(rng.random(needed - 1), alpha) == math.inf


def test_needed_says_how_many():
    assert [images_needed(alpha) for alpha in (0.5, 0.1, 0.05, 0.01)] == [1, 9, 19, 99]
    check_enough(19, 0.05, "set")
    with pytest.raises(RuacError, match=r"set: 18 images, but alpha=0.05 needs at least 19"):
        check_enough(18, 0.05, "set")


def test_it_is_the_order_statistic_place_by_place_and_nan_does_not_count():
    rng = np.random.default_rng(1)
    scores = rng.random((40, 3, 2))
    scores[:25, 0, 1] = np.nan
    found = conformal_quantile(scores, 0.1)
    for y in range(3):
        for x in range(2):
            own = np.sort(scores[:, y, x][~np.isnan(scores[:, y, x])])
            assert found[y, x] == own[math.ceil(round((len(own) + 1) * 0.9, 9)) - 1]


@pytest.mark.parametrize("count", [19, 30, 100])
def test_coverage_by_simulation(count):
    """10^4 draws of calibration and one new score: the coverage lies between its two bounds, up to 4 sigma."""
    draws, alpha = 10_000, 0.1
    scores = np.random.default_rng(count).standard_normal((count + 1, draws))
    covered = (scores[-1] <= conformal_quantile(scores[:-1], alpha)).mean()
    error = 4 * math.sqrt(alpha * (1 - alpha) / draws)
    assert 1 - alpha - error <= covered <= 1 - alpha + 1 / (count + 1) + error
    assert covered == pytest.approx(
        math.ceil(round((count + 1) * 0.9, 9)) / (count + 1), abs=error
    )  # what it is exactly


def test_weights_mend_a_known_shift():
    """Scores depend on x, whose law changes; with its true likelihood ratio the coverage is back, without it is not."""
    rng = np.random.default_rng(3)
    plain, mended, draws = 0, 0, 4000
    ratio = lambda x: np.exp(1.5 * x - 1.5**2 / 2)  # noqa: E731  (N(1.5, 1) over N(0, 1))
    for _ in range(draws):
        x, new = rng.standard_normal(200), rng.standard_normal() + 1.5
        scores, score = (np.abs(rng.standard_normal(n)) * np.exp(v / 2) for n, v in ((200, x), (None, new)))
        plain += score <= conformal_quantile(scores, 0.1)
        mended += score <= weighted_quantile(scores, ratio(x), ratio(new), 0.1)
    assert plain / draws < 0.8
    assert mended / draws > 0.9 - 0.02


def test_equal_weights_are_no_weights():
    scores = np.random.default_rng(4).random(57)
    for alpha in (0.01, 0.05, 0.1, 0.3):
        assert weighted_quantile(scores, np.ones(57), 1.0, alpha) == conformal_quantile(scores, alpha)


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2, float("nan"), "0.1", True])
def test_alpha_out_of_range(alpha):
    with pytest.raises(RuacError, match="alpha"):
        conformal_quantile(np.ones(3), alpha)
