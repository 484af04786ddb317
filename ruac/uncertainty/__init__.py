"""Heads, the posteriors of masks that they predict, and uncertainty maps."""

from ruac.uncertainty.bayesian import BayesianHead
from ruac.uncertainty.build import build_head
from ruac.uncertainty.head import Head, HeadConfig, MaskPosterior
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
    "Head",
    "HeadConfig",
    "MaskPosterior",
    "Posterior",
    "UncertaintyMaps",
    "binary_entropy",
    "build_head",
    "decompose",
    "logit_entropy",
    "monte_carlo_maps",
    "probability",
    "probit_logit",
    "total_uncertainty",
    "uncertainty_maps",
]
