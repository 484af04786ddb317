"""Temperatures, one or several: known ones are found again, by the definition and by independent solvers."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, log_expit
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression

from ruac.base.errors import RuacError
from ruac.calibration import Answers
from ruac.calibration.clicks import Clicks
from ruac.calibration.clustered import Clustered, ClusteredConfig
from ruac.calibration.ensemble import EnsembleTemperature
from ruac.calibration.histogram import LogitHistogram
from ruac.calibration.temperature import Temperature, fit_temperature


def fitted(calibrator, answers):
    calibrator.fit(answers)
    return calibrator


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(pixels, temperature):
    assert fitted(Temperature(), [pixels(temperature)]).temperature == pytest.approx(temperature, rel=0.02)


def test_it_is_the_slope_of_a_logistic_regression_and_the_minimum_of_a_search(pixels):
    """Both see every pixel; the fit sees a histogram."""
    one = pixels(2.0, 20_000)
    logits, truth = one.logits.reshape(-1).double().numpy(), one.truth.numpy()
    found = fitted(Temperature(), [one]).temperature
    reference = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-8).fit(logits[:, None], truth)
    assert found == pytest.approx(1 / float(reference.coef_[0, 0]), rel=1e-4)
    search = minimize_scalar(
        lambda t: -log_expit(np.where(truth > 0, logits, -logits) / t).mean(), bounds=(0.1, 10), method="bounded"
    )
    assert found == pytest.approx(search.x, rel=1e-4)


def test_the_histogram_stands_for_the_pixels():
    torch.manual_seed(0)
    logits, truth = 20 * torch.randn(50_000), torch.rand(50_000) < 0.5
    histogram = LogitHistogram(3)
    group = torch.arange(50_000) % 3
    for part in (slice(0, 9), slice(9, 30_000), slice(30_000, None)):
        histogram.add(logits[part], truth[part].float(), group[part])
    assert histogram.pixels.tolist() == torch.bincount(group).tolist()
    for chosen, where in ((None, torch.ones_like(truth)), (1, group == 1)):
        mean, label, weight = histogram.points(chosen)
        assert weight.sum() == where.sum()
        assert (weight * label).sum() == truth[where].sum()
        assert (weight * mean).sum() == pytest.approx(float(logits[where].double().sum()), rel=1e-9)
        own = np.where(truth[where], 1, -1) * logits[where].double().numpy()
        coarse = -(weight * log_expit((2 * label - 1) * mean)).sum() / weight.sum()
        # What lies beyond the last bins is linear there, so that its mean is as good as it.
        assert coarse == pytest.approx(-log_expit(own).mean(), abs=2e-5)
    with pytest.raises(RuacError, match="0 pixels"):
        LogitHistogram().points()


def test_pixels_that_have_no_best_temperature():
    logits = torch.randn(1000)
    for truth in (logits > 0, logits < 0):  # without a mistake, and with nothing else
        with pytest.raises(RuacError, match="no best value for 1000 pixels"):
            Temperature().fit([Answers.of(logits, truth)])
    with pytest.raises(RuacError, match="0 images"):
        Temperature().fit([])


def test_extreme_temperatures_are_found(pixels):
    for temperature in (0.05, 30.0):
        one = pixels(temperature, spread=20.0 if temperature > 1 else 0.2)
        assert fitted(Temperature(), [one]).temperature == pytest.approx(temperature, rel=0.05)


def test_clusters_have_temperatures_of_their_own(pictures):
    answers = pictures((1.0, 3.0), count=40)
    calibrator = fitted(Clustered(ClusteredConfig(2)), answers)
    features = torch.cat([one.evidence.feature[:1] for one in answers])
    reference = KMeans(2, n_init=10, random_state=0).fit(features.double().numpy())
    new = torch.rand(50, 5)
    assert torch.equal(calibrator.nearest(new), torch.from_numpy(reference.predict(new.double().numpy())).long())
    for which, temperature in enumerate((1.0, 3.0)):
        one = answers[which]
        scale = one.logits / calibrator.apply(one.logits, one.evidence)
        assert scale.mean() == pytest.approx(temperature, rel=0.1)


def test_one_cluster_is_temperature_scaling(pictures):
    answers = pictures(count=6)
    one, plain = fitted(Clustered(ClusteredConfig(1)), answers), fitted(Temperature(), answers)
    assert torch.allclose(one.log_temperature[0], plain.log_temperature)


def test_more_clusters_than_pictures(pictures):
    with pytest.raises(RuacError, match="3 images to calibrate on, expected at least 16"):
        Clustered().fit(pictures(count=3))
    calibrator = fitted(Clustered(ClusteredConfig(2)), pictures(count=4))
    with pytest.raises(RuacError, match="features of 7 numbers, expected 5"):
        calibrator.nearest(torch.zeros(1, 7))


def test_a_group_too_small_for_a_temperature_has_the_common_one(pictures):
    """A cluster whose pixels show no mistake: its own temperature would be 0."""
    answers = pictures((1.0, 3.0), count=8)
    easy = answers[1::2]
    answers[1::2] = [Answers.of(a.logits[:, 0], a.logits[:, 0] > 0, a.evidence) for a in easy]
    calibrator = fitted(Clustered(ClusteredConfig(2)), answers)
    common = fitted(Temperature(), answers)
    found = calibrator.log_temperature[calibrator.nearest(easy[0].evidence.feature[:1])]
    assert float(found) == pytest.approx(float(common.log_temperature), abs=1e-6)


def test_each_number_of_clicks_has_its_temperature(pictures):
    answers = pictures((1.0, 3.0), count=40)  # of 1 and 3 clicks
    calibrator = fitted(Clicks(), answers)
    found = calibrator.log_temperature.exp()
    assert found[0, 1] == pytest.approx(1.0, rel=0.1)
    assert found[0, 3] == pytest.approx(3.0, rel=0.1)
    assert found[0, 0] == found[0, 1]  # the nearest that was fitted
    assert (found[0, 4:] == found[0, 3]).all()
    assert torch.equal(found[1], found[0])  # no answer with a box was seen
    one = answers[1]
    torch.testing.assert_close(calibrator.apply(one.logits, one.evidence), one.logits / found[0, 3])


def test_the_mixture_is_the_best_one(pixels):
    """Half of the pixels of temperature 1, half a coin toss: no temperature describes that, and a mixture does."""
    logits = 4 * torch.randn(200_000)
    guess = torch.rand(len(logits)) < 0.3
    truth = torch.where(guess, torch.rand(len(logits)) < 0.5, torch.rand(len(logits)) < logits.sigmoid())
    one = Answers.of(logits, truth)
    calibrator = fitted(EnsembleTemperature(), [one])
    assert float(calibrator.weights[2]) == pytest.approx(0.3, abs=0.02)
    p = expit(logits.double().numpy())
    t = float(calibrator.log_temperature.exp())
    parts = np.stack([expit(logits.double().numpy() / t), p, np.full(len(p), 0.5)])

    def mean_loss(x):
        weights = np.exp(x) / np.exp(x).sum()
        q = weights @ parts
        return -np.log(np.where(truth.numpy(), q, 1 - q)).mean()

    search = minimize(mean_loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-10})
    own = mean_loss(calibrator.weights.double().log().numpy())
    assert own == pytest.approx(search.fun, abs=2e-5)
    mixed = calibrator.apply(logits).sigmoid().double().numpy()
    np.testing.assert_allclose(mixed, calibrator.weights.double().numpy() @ parts, atol=1e-5)
    assert fit_temperature(_points(one)) == pytest.approx(t)


def _points(one):
    histogram = LogitHistogram()
    histogram.add(one.pixels(), one.truth)
    return histogram.points()
