"""Sampled and analytic maps are of one distribution, whatever the head, and under every scale that it has."""

import pytest
import torch
from builders import make_decoded

from ruac.uncertainty import BayesianConfig, build_head, head_config, monte_carlo_maps, uncertainty_maps

CONFIGS = {
    "signed": BayesianConfig(),
    "scaled": BayesianConfig(logit_scale=True),
    "local temperature": BayesianConfig(local_temperature=True),
    "nonnegative": BayesianConfig(posterior="nonnegative", local_temperature=True),
    "context": head_config("local_temperature"),
    "evidential": head_config("evidential"),
    "laplace": head_config("laplace"),
}


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_sampled_maps_agree_with_analytic_ones(name):
    head = build_head(CONFIGS[name], token_dim=16, channels=8)
    for key, value in head.named_parameters():
        if key == "log_scale":
            value.fill_(-1.0)
        if key == "local_temperature.network.4.bias":
            value.fill_(-1.5)  # a scale of 0.22: total would be far lower without it
    posterior = head(make_decoded(2, side=6, token_dim=16))
    sampled = monte_carlo_maps(posterior, 400, torch.Generator().manual_seed(0))
    analytic = uncertainty_maps(*posterior.calibrated(), nodes=32)
    tolerance = 0.12 if name == "evidential" else 0.03
    assert (sampled.total - analytic.total).abs().mean() < tolerance
    assert (sampled.probability - analytic.probability).abs().mean() < tolerance
