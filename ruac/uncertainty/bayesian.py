"""The Bayesian head: SAM 2's last inner product with Weibull factors (paper sec. 3.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.uncertainty.head import ScaledHeadConfig
from ruac.uncertainty.local_temperature import LocalScale, LocalTemperature, OldNames
from ruac.uncertainty.pixel_factor import PixelFactor, ShapeReader, bounded_shape
from ruac.uncertainty.posterior import Factor, Posterior, inner_product
from ruac.uncertainty.weibull import LEAST_SHAPE

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded


@dataclass
class BayesianConfig(ScaledHeadConfig):
    """kappa: shape of the image tokens per pixel and ``channel``, or one per ``pixel``; mask tokens always have one per
    channel. kappa_pool: side of the squares of decoded pixels that share the image tokens' shapes; 2 takes a quarter
    of the work (a stride of 8 image pixels with SAM 2). hidden: width of the hidden layers. kappa_init: start of
    kappa; 4 gives each factor a standard deviation of 0.28 of its mean. variance: ``full`` (paper eq. S8) or ``short``
    (first term only, eq. S9). local_temperature: one more factor of mean and deviation, per pixel, that reads the mask,
    the candidates and the predicted IoU (`LocalTemperature`); local_hidden: width of its layers. prior_shape,
    prior_rate: the Gamma prior of the magnitudes.
    """

    posterior: str = "signed"
    kappa: str = "channel"
    kappa_pool: int = field(default=1, metadata={"later": True})
    hidden: int = 16
    kappa_min: float = 0.5
    kappa_max: float = 10.0
    kappa_init: float = 4.0
    variance: str = "full"
    local_temperature: bool = False
    local_hidden: int = 32
    prior_shape: float = 1.0
    prior_rate: float = 3.0

    def validate(self) -> None:
        super().validate()
        self.expect_one_of("kappa", "channel", "pixel")
        self.expect_one_of("variance", "full", "short")
        self.expect_at_least("hidden", 1)
        self.expect_at_least("kappa_pool", 1)
        self.expect_at_least("local_hidden", 1)
        if not LEAST_SHAPE <= self.kappa_min < self.kappa_max < math.inf:
            raise RuacError(
                "head.kappa_min, head.kappa_max: expected "
                f"{LEAST_SHAPE} <= kappa_min < kappa_max, found {self.kappa_min} and {self.kappa_max}"
            )
        if not self.kappa_min <= self.kappa_init <= self.kappa_max:
            raise RuacError(
                f"head.kappa_init: expected a value from {self.kappa_min} to {self.kappa_max}, found {self.kappa_init}"
            )
        for key in ("prior_shape", "prior_rate"):
            if not 0 < getattr(self, key) < math.inf:
                raise RuacError(f"head.{key}: expected a positive number, found {getattr(self, key)}")


class BayesianHead(OldNames, nn.Module):
    """Turns a decoder pass into a distribution of its logits.

    signed: both factors are SAM 2's, f and w, each with a Weibull magnitude of mean |f|, |w| and SAM 2's sign.
    The posterior mean is ``decoded.logits`` itself.

    nonnegative: ``z = relu(Linear f)``, ``w_fg, w_bg, b = MLP(mask token)``, the first two behind a ReLU;
    ``l = <z, w_fg> - <z, w_bg> + b``. The two products share one z, which makes them dependent: their variances
    do not add. Var l is taken of ``<z, w_fg - w_bg>``, exact, with separate shapes for w_fg and w_bg.

    Everything runs in float32, also under autocast.

    Trainable parameters for c = 32, D = 256, hidden 16: signed 17,488 (kappa per channel) or 12,993 (per pixel),
    nonnegative 31,985 or 27,490; one more with a logit scale, 1,505 more with a local temperature. The paper
    states about 7.5 K for its head.
    """

    def __init__(self, config: BayesianConfig, *, token_dim: int, channels: int):
        super().__init__()
        self.config = config
        self.changes_masks = config.posterior != "signed"
        nonnegative = config.posterior == "nonnegative"
        terms = 2 if nonnegative else 1
        self.pixel_shape = nn.Sequential(
            nn.Conv2d(channels, config.hidden, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(config.hidden, channels if config.kappa == "channel" else 1, 3, padding=1),
        )
        self.weight_shape = nn.Linear(token_dim, terms * channels)
        for layer in (self.pixel_shape[-1], self.weight_shape):
            # Nearly constant at first: softplus of the bias is kappa_init.
            nn.init.normal_(layer.weight, std=1e-3)
            nn.init.constant_(layer.bias, math.log(math.expm1(config.kappa_init)))
        if nonnegative:
            self.pixel_mean = nn.Conv2d(channels, channels, 1)
            self.weight_mean = nn.Sequential(
                nn.Linear(token_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, 2 * channels + 1)
            )
        self.log_scale = nn.Parameter(torch.zeros(())) if config.logit_scale else None
        self.local_temperature = LocalTemperature(config.local_hidden) if config.local_temperature else None

    def forward(self, decoded: Decoded) -> Posterior:
        config = self.config
        with torch.autocast(decoded.pixel_tokens.device.type, enabled=False):
            features = decoded.pixel_tokens.float()  # [N, c, h, w]
            tokens = decoded.mask_tokens.float()  # [N, K, D]
            reader = ShapeReader(self.pixel_shape, config.kappa_min, config.kappa_max, config.kappa_pool)
            raw = rearrange(self.weight_shape(tokens), "n k (s c) -> n k s c", c=features.shape[1])
            weight_shape = bounded_shape(raw, config.kappa_min, config.kappa_max)
            if config.posterior == "signed":
                pixel_mean, bias = features, None
                weight_mean = rearrange(decoded.mask_weights.float(), "n k c -> n k 1 c")
                mean = decoded.logits.float()
            else:
                pixel_mean = straight_through_relu(self.pixel_mean(features))
                evidence, bias = self.weight_mean(tokens).tensor_split([-1], dim=-1)
                foreground, background = straight_through_relu(evidence).chunk(2, dim=-1)  # [N, K, c] each
                weight_mean, bias = torch.stack([foreground, -background], dim=2), bias.squeeze(-1)
                mean = inner_product(weight_mean.sum(2), pixel_mean, bias)
            return Posterior(
                mean=mean,
                pixel=PixelFactor(pixel_mean, features, reader),
                weight=Factor(weight_mean, weight_shape),
                bias=bias,
                scale=None if self.log_scale is None else self.log_scale.exp(),
                local_scale=None
                if self.local_temperature is None
                else LocalScale.of(self.local_temperature, decoded, mean),
                full_variance=config.variance == "full",
                prior=(config.prior_shape, config.prior_rate),
            )


def straight_through_relu(x: Tensor) -> Tensor:
    """ReLU forward, with exact zeros; identity backward, so that a unit at zero can come back."""
    return x + (F.relu(x) - x).detach()
