"""Temperature scaling: a known T is found again, and no mask moves."""

import pytest
import torch
from builders import make_decoded
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from ruac.base.errors import RuacError
from ruac.uncertainty import probit_logit
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead, fit_temperature, temperature_nll


def drawn(temperature, count=400_000):
    logits = 4 * torch.randn(count)
    return logits, torch.rand(count) < (logits / temperature).sigmoid()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_a_known_temperature_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.01)


def test_it_is_the_slope_of_a_logistic_regression_without_intercept():
    logits, target = drawn(2.0, 20_000)
    reference = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-8).fit(logits[:, None].numpy(), target.numpy())
    found = fit_temperature(logits, target)
    assert found == pytest.approx(1 / float(reference.coef_[0, 0]), rel=1e-3)
    for other in (0.98 * found, 1.02 * found):
        assert temperature_nll(logits, target, found) < temperature_nll(logits, target, other)


def test_pixels_that_have_no_best_temperature():
    logits = torch.randn(1000)
    for target in (logits > 0, logits < 0):  # without a mistake, and with nothing else
        with pytest.raises(RuacError, match="no best value"):
            fit_temperature(logits, target)
    with pytest.raises(RuacError, match="0 pixels"):
        fit_temperature(torch.zeros(0), torch.zeros(0, dtype=torch.bool))


def test_the_head_divides_logits_and_keeps_masks():
    decoded = make_decoded(side=8, gain=2.0)
    posterior = TemperatureHead(TemperatureConfig(temperature=2.5))(decoded)
    assert torch.equal(posterior.mean, decoded.logits)
    assert torch.equal(posterior.sample(), decoded.logits)
    assert not posterior.variance.any()
    one = posterior.select(torch.tensor([1, 3, 2]))
    probability = probit_logit(*one.calibrated()).sigmoid()[:, 0]
    expected = torch.from_numpy(expit(decoded.logits[[0, 1, 2], [1, 3, 2]].numpy() / 2.5))
    torch.testing.assert_close(probability, expected)
    assert posterior.scores() == {}
    assert posterior.kl() == 0
