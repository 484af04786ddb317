"""The head of older temperature fits: it divides logits, and no mask moves."""

import torch
from builders import make_decoded
from scipy.special import expit

from ruac.uncertainty import probit_logit
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead


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
