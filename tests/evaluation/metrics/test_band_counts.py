"""Counts per object against the exact metrics of the same pixels."""

import numpy as np
import pytest
import torch

from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.metrics.band_counts import BINS, STEP, Band, band_counts, pooled_metrics
from ruac.evaluation.metrics.significance import pooled_bootstrap


def pixels(seed, n=6, side=40, sharpness=1.5, offset=0.0):
    """Probability, wrong and band of N maps, with errors where confidence is low."""
    generator = torch.Generator().manual_seed(seed)
    logit = 3 * torch.randn(n, side, side, generator=generator) + offset
    truth = torch.rand(n, side, side, generator=generator) < (logit / sharpness).sigmoid()
    band = torch.rand(n, side, side, generator=generator) < 0.7
    return logit.sigmoid(), (logit > 0) != truth, band


def counted(some):
    probability, wrong, band = some
    return band_counts(probability, wrong, Band.of(band.numpy()))


def test_every_pixel_of_the_band_is_in_the_bin_of_its_confidence():
    probability, wrong, band = pixels(0, n=2, side=9)
    counts = band_counts(probability, wrong, Band.of(band.numpy()))
    assert counts.shape == (2, 2, BINS)
    assert counts.dtype == np.int32
    wanted = np.zeros_like(counts)
    for n, y, x in band.nonzero().tolist():
        p = float(probability[n, y, x])
        bin_ = min(int(abs(np.log(p / (1 - p))) / STEP), BINS - 1)
        wanted[n, int(wrong[n, y, x]), bin_] += 1
    assert np.array_equal(counts, wanted)


def test_means_over_bands():
    values, _, band = pixels(3, n=3, side=50)
    band[1] = False
    found = Band.of(band.numpy()).mean(values)
    for n in (0, 2):
        assert found[n] == pytest.approx(float(values[n][band[n]].double().mean()), rel=1e-12)
    assert np.isnan(found[1])


def test_pooled_metrics_are_those_of_the_pixels():
    probability, wrong, band = pixels(1)
    found = pooled_metrics(band_counts(probability, wrong, Band.of(band.numpy())).sum(0))
    p = probability[band]
    entropy = (torch.special.entr(p) + torch.special.entr(1 - p)) / np.log(2)
    sums = ReliabilitySums()
    sums.update(probability=p, uncertainty=entropy, target=(p > 0.5) ^ wrong[band], prediction=p > 0.5)
    exact = sums.compute()
    for name, tolerance in {"auroc": 1e-3, "aurc": 1e-3, "ece": 3e-3, "prr": 0.2}.items():
        assert found[name] == pytest.approx(exact[name], abs=tolerance)


def test_many_sets_at_once_are_each_of_them():
    counts = counted(pixels(2))
    together = pooled_metrics(counts)
    for n in range(len(counts)):
        for name, value in pooled_metrics(counts[n]).items():
            assert together[name][n] == pytest.approx(value, rel=1e-12)


def test_no_error_has_no_ranking():
    counts = np.zeros((2, BINS), dtype=np.int32)
    counts[0, 3] = 5
    found = pooled_metrics(counts)
    assert np.isnan(found["auroc"])
    assert np.isnan(found["prr"])
    assert found["aurc"] == 0


def test_bootstrap_draws_images_and_pairs_the_models():
    """A model against itself differs by nothing in any draw; against one with shuffled confidence by much."""
    counts = np.stack([counted(pixels(seed, n=4)) for seed in range(10)]).reshape(40, 2, BINS)
    images = np.repeat(np.arange(10), 4)
    same = pooled_bootstrap({"a": (images, counts, counts)}, resamples=50)
    assert all(interval == (0, 0, 0) for interval in same.values())
    rng = np.random.default_rng(0)
    shuffled = counts[..., rng.permutation(BINS)]
    found = pooled_bootstrap({"a": (images, counts, shuffled)}, resamples=200)["auroc"]
    assert 0 < found.low < found.value < found.high
    wanted = pooled_metrics(counts.sum(0))["auroc"] - pooled_metrics(shuffled.sum(0))["auroc"]
    assert found.value == pytest.approx(wanted)


def test_bootstrap_is_as_wide_as_drawing_images_by_hand():
    counts = np.stack([counted(pixels(seed, n=2, sharpness=0.5 + seed / 4)) for seed in range(12)])
    other = np.stack([counted(pixels(seed, n=2, sharpness=3.0)) for seed in range(12)])
    images = np.repeat(np.arange(12), 2)
    found = pooled_bootstrap({"a": (images, counts.reshape(24, 2, BINS), other.reshape(24, 2, BINS))}, resamples=2000)
    rng, differences = np.random.default_rng(5), []
    for _ in range(2000):
        drawn = rng.integers(12, size=12)
        one, two = (pooled_metrics(x[drawn].sum((0, 1)))["ece"] for x in (counts, other))
        differences.append(one - two)
    low, high = np.quantile(differences, [0.025, 0.975])
    width = high - low
    assert found["ece"].low == pytest.approx(low, abs=0.1 * width)
    assert found["ece"].high == pytest.approx(high, abs=0.1 * width)
