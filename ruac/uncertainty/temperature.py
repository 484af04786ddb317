"""Heads that scale SAM 2's logits by one number, or one per pixel, and have no spread.

One per pixel can be trained as a head. What is fitted afterwards is a calibrator (`ruac.calibration`): as
`TemperatureHead`, exports of older fits come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.uncertainty.head import HeadConfig
from ruac.uncertainty.linear import LinearPosterior
from ruac.uncertainty.local_temperature import LocalScale, LocalTemperature, OldNames

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded


@dataclass
class TemperatureConfig(HeadConfig):
    """temperature: above 1 lowers confidence."""

    posterior: str = "temperature"
    temperature: float = 1.0

    def validate(self) -> None:
        super().validate()
        if not 0 < self.temperature < math.inf:
            raise RuacError(f"temperature: {self.temperature}, expected a positive number")


@dataclass
class LocalTemperatureConfig(HeadConfig):
    """local_hidden: width of the layers of `LocalTemperature`."""

    posterior: str = "local_temperature"
    local_hidden: int = 32

    def validate(self) -> None:
        super().validate()
        self.expect_at_least("local_hidden", 1)


def spreadless(
    decoded: Decoded, *, scale: Tensor | None = None, local_scale: LocalScale | None = None
) -> LinearPosterior:
    """SAM 2's logits without any spread, under the given scales."""
    none = decoded.mask_weights[:, :, None][:, :, :0].float()  # [N, K, 0, c]
    pixel, mean = decoded.pixel_tokens.float(), decoded.logits.float()
    return LinearPosterior(mean=mean, pixel=pixel, directions=none, scale=scale, local_scale=local_scale)


class TemperatureHead(nn.Module):
    """Probability ``sigmoid(l / T)``, without spread; masks are SAM 2's own, since T moves no logit across 0.

    It fits decoders of any size.
    """

    changes_masks = False

    def __init__(self, config: TemperatureConfig, *, token_dim: int = 0, channels: int = 0):
        assert 0 < config.temperature < math.inf, config
        super().__init__()
        self.config = config
        self.register_buffer("scale", torch.tensor(1 / config.temperature))

    def forward(self, decoded: Decoded) -> LinearPosterior:
        return spreadless(decoded, scale=self.scale)


class LocalTemperatureHead(OldNames, nn.Module):
    """Temperature scaling with a temperature per pixel, read from the answer (`LocalTemperature`), and nothing else.

    The control for heads with a spread and a local temperature: what the latter does alone.
    """

    changes_masks = False

    def __init__(self, config: LocalTemperatureConfig, *, token_dim: int, channels: int):
        super().__init__()
        self.config = config
        self.local_temperature = LocalTemperature(config.local_hidden)

    def forward(self, decoded: Decoded) -> LinearPosterior:
        return spreadless(decoded, local_scale=LocalScale.of(self.local_temperature, decoded, decoded.logits.float()))
