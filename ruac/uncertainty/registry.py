"""All heads by the name of their posterior: what they are set with and what they are."""

from __future__ import annotations

from typing import Any

from ruac.uncertainty.bayesian import BayesianConfig, BayesianHead
from ruac.uncertainty.dropout import DropoutConfig, DropoutHead
from ruac.uncertainty.evidential import EvidentialConfig, EvidentialHead
from ruac.uncertainty.head import Head, HeadConfig
from ruac.uncertainty.laplace import LaplaceConfig, LaplaceHead
from ruac.uncertainty.temperature import (
    LocalTemperatureConfig,
    LocalTemperatureHead,
    TemperatureConfig,
    TemperatureHead,
)

HEADS: dict[str, tuple[type[HeadConfig], type[Head] | None]] = {
    "signed": (BayesianConfig, BayesianHead),
    "nonnegative": (BayesianConfig, BayesianHead),
    "evidential": (EvidentialConfig, EvidentialHead),
    "dropout": (DropoutConfig, DropoutHead),
    "laplace": (LaplaceConfig, LaplaceHead),
    "local_temperature": (LocalTemperatureConfig, LocalTemperatureHead),
    "temperature": (TemperatureConfig, TemperatureHead),
    "none": (HeadConfig, None),
}
"""To add a head: its config and its class in a file of its own, and a line here."""

HeadConfig.KINDS.update({posterior: config for posterior, (config, _) in HEADS.items()})


def head_config(posterior: str, **settings: Any) -> HeadConfig:
    """The config of the head of that name, with its defaults and `settings`."""
    return HEADS[posterior][0](posterior=posterior, **settings)


def build_head(config: HeadConfig, *, token_dim: int, channels: int) -> Head | None:
    """The head of `config` on a decoder of width `token_dim` and `channels` = c; None for ``posterior: none``."""
    config.validate()
    head = HEADS[config.posterior][1]
    return None if head is None else head(config, token_dim=token_dim, channels=channels)
