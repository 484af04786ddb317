"""Heads, the posteriors of masks that they predict, and uncertainty maps."""

from ruac.uncertainty.bayesian import BayesianConfig, BayesianHead
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
from ruac.uncertainty.registry import HEADS, build_head, head_config

__all__ = [
    "HEADS",
    "BayesianConfig",
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
    "head_config",
    "logit_entropy",
    "monte_carlo_maps",
    "probability",
    "probit_logit",
    "total_uncertainty",
    "uncertainty_maps",
]
