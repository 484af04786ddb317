"""Weibull factors, the posterior of mask logits, and uncertainty maps."""

from ruac.uncertainty.head import BayesianHead, HeadConfig
from ruac.uncertainty.maps import (
    UncertaintyMaps,
    binary_entropy,
    decompose,
    logit_entropy,
    monte_carlo_maps,
    probability,
    probit_logit,
    total_uncertainty,
    uncertainty_maps,
)
from ruac.uncertainty.posterior import Factor, Posterior

__all__ = [
    "BayesianHead",
    "Factor",
    "HeadConfig",
    "Posterior",
    "UncertaintyMaps",
    "binary_entropy",
    "decompose",
    "logit_entropy",
    "monte_carlo_maps",
    "probability",
    "probit_logit",
    "total_uncertainty",
    "uncertainty_maps",
]
