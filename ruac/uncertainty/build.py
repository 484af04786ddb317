"""Heads by the name of their posterior."""

from __future__ import annotations

from ruac.uncertainty.bayesian import BayesianHead
from ruac.uncertainty.dropout import DropoutHead
from ruac.uncertainty.evidential import EvidentialHead
from ruac.uncertainty.head import Head, HeadConfig
from ruac.uncertainty.laplace import LaplaceHead
from ruac.uncertainty.temperature import LocalTemperatureHead

HEADS = {
    "signed": BayesianHead,
    "nonnegative": BayesianHead,
    "evidential": EvidentialHead,
    "dropout": DropoutHead,
    "laplace": LaplaceHead,
    "local_temperature": LocalTemperatureHead,
}


def build_head(config: HeadConfig, *, token_dim: int, channels: int) -> Head | None:
    """The head of `config` on a decoder of width `token_dim` and `channels` = c; None for ``posterior: none``."""
    config.validate()
    if config.posterior == "none":
        return None
    return HEADS[config.posterior](config, token_dim=token_dim, channels=channels)
