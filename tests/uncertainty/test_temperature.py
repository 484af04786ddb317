"""The head of older temperature fits: it divides logits, and no mask moves."""

import torch
from scipy.special import expit

from ruac.backbone import Decoded
from ruac.uncertainty import probit_logit
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead


def test_the_head_divides_logits_and_keeps_masks():
    decoded = Decoded(
        logits=5 * torch.randn(3, 4, 8, 8),
        iou=torch.rand(3, 4),
        object_score=torch.randn(3, 1),
        mask_tokens=torch.randn(3, 4, 16),
        pixel_tokens=torch.randn(3, 2, 8, 8),
        mask_weights=torch.randn(3, 4, 2),
    )
    posterior = TemperatureHead(TemperatureConfig(2.5))(decoded)
    assert torch.equal(posterior.mean, decoded.logits)
    assert torch.equal(posterior.sample(), decoded.logits)
    assert not posterior.variance.any()
    one = posterior.select(torch.tensor([1, 3, 2]))
    probability = probit_logit(*one.calibrated()).sigmoid()[:, 0]
    expected = torch.from_numpy(expit(decoded.logits[[0, 1, 2], [1, 3, 2]].numpy() / 2.5))
    torch.testing.assert_close(probability, expected)
    assert posterior.scores() == {}
    assert posterior.kl() == 0
