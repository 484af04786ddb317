"""Bootstrap and Wilcoxon against scipy, and against what chance does."""

import numpy as np
import pytest
from scipy import stats

from ruac.evaluation.metrics.significance import bootstrap_interval, paired_bootstrap, wilcoxon


def test_interval_of_one_domain_is_scipys_percentile_interval():
    values = np.random.default_rng(0).beta(3, 1, 150)
    ours = bootstrap_interval({"a": values}, resamples=20_000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20_000).confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert (ours.low, ours.high) == pytest.approx(tuple(theirs), abs=2e-3)


def test_paired_interval_covers_the_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(1)
    inside = 0
    for trial in range(200):
        hard = {name: rng.beta(2, 2, size) for name, size in (("a", 40), ("b", 400))}  # objects differ, pairs do not
        ours = {name: x + rng.normal(0.02, 0.05, len(x)) for name, x in hard.items()}
        interval = paired_bootstrap(ours, hard, resamples=400, seed=trial)
        assert interval.low < interval.value < interval.high
        inside += interval.low <= 0.02 <= interval.high
    assert 0.88 <= inside / 200 <= 0.99


def test_domains_weigh_the_same_whatever_their_size_and_order():
    rng = np.random.default_rng(2)
    small, large = rng.normal(0.3, 0.1, 30), rng.normal(0.7, 0.1, 3000)
    interval = bootstrap_interval({"small": small, "large": large})
    assert interval.value == pytest.approx((small.mean() + large.mean()) / 2)
    width = 1.96 * np.hypot(small.std() / 30**0.5, large.std() / 3000**0.5) / 2
    assert interval.high - interval.low == pytest.approx(2 * width, rel=0.1)
    assert bootstrap_interval({"large": large, "small": small}) == pytest.approx(interval)
    assert bootstrap_interval({"small": small, "large": large}) == interval


def test_wilcoxon_matches_scipy_and_leaves_out_missing_domains():
    rng = np.random.default_rng(3)
    ours, theirs = rng.random(23), rng.random(23)
    assert wilcoxon(ours, theirs) == stats.wilcoxon(ours, theirs).pvalue
    assert wilcoxon(np.append(ours, np.nan), np.append(theirs, 1)) == stats.wilcoxon(ours, theirs).pvalue
    assert wilcoxon(theirs + 0.1, theirs) < 1e-4
    assert wilcoxon(theirs, theirs) == 1


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_interval({})
    for bad in ([], [0.5, np.nan], [[0.5]]):
        with pytest.raises(ValueError, match="domain 'a'"):
            bootstrap_interval({"a": np.array(bad)})
    with pytest.raises(ValueError, match=r"\['b'\] are of one model"):
        paired_bootstrap({"a": np.ones(3)}, {"a": np.ones(3), "b": np.ones(3)})
    with pytest.raises(ValueError, match="3 and 2 objects cannot be paired"):
        paired_bootstrap({"a": np.ones(3)}, {"a": np.ones(2)})
    with pytest.raises(ValueError, match=r"expected \[D\] both"):
        wilcoxon(np.ones(3), np.ones(2))
