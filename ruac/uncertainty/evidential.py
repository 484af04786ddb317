"""UR-ERN: evidential regression of the mask (Amini et al., 2020; Ye et al., 2024; paper app. E), a baseline.

Per pixel a normal-inverse-gamma distribution says what the mask's value y in [0, 1] may be: ``y ~ N(mu, s2)``,
``mu ~ N(gamma, s2 / nu)``, ``s2 ~ InvGamma(alpha, beta)``. Its marginal is Student's t with 2 alpha degrees of freedom,
location gamma and squared scale ``beta (1 + nu) / (nu alpha)``; its variance is the uncertainty.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Generator, Tensor, nn

from ruac.base.errors import RuacError
from ruac.uncertainty.head import HeadConfig
from ruac.uncertainty.posterior import inner_product

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded

MARGIN = 1e-3
"""gamma is kept this far from 0 and 1 where it is turned into a logit (of at most 6.9)."""
FLOOR = 1e-6
"""Least nu, alpha - 1 and beta: softplus underflows to 0, where the likelihood has no value."""


@dataclass
class EvidentialConfig(HeadConfig):
    """Nothing to set: its mean is no logit, which a scale could act on."""

    posterior: str = "evidential"


@dataclass
class EvidentialLossConfig:
    """weight: of the whole loss (0: off). evidence: of the regulariser that punishes evidence for errors (0.01 in
    Amini et al.). ur: of the term that keeps a gradient where there is no evidence (paper 0.005)."""

    weight: float = 0.0
    evidence: float = 0.01
    ur: float = 0.005

    def validate(self) -> None:
        for name in ("weight", "evidence", "ur"):
            if getattr(self, name) < 0:
                raise RuacError(f"loss.evidential.{name}: {getattr(self, name)}, expected at least 0")


@dataclass(frozen=True, eq=False)
class EvidentialPosterior:
    """Parameters of the distribution of the mask's value, each ``[N, K, h, w]``.

    raw_alpha: alpha - 1 before its softplus. The mask is where gamma > 0.5; as y is 0 or 1, its mean gamma is also
    the probability of the object. `mean` is the logit of that.
    """

    gamma: Tensor
    nu: Tensor
    alpha: Tensor
    beta: Tensor
    raw_alpha: Tensor

    @property
    def mean(self) -> Tensor:
        return torch.logit(self.gamma.clamp(MARGIN, 1 - MARGIN))

    @property
    def variance(self) -> Tensor:
        """Total predictive variance of the mask's value, ``beta (1 + nu) / (nu (alpha - 1))``: not of a logit."""
        return self.beta * (1 + self.nu) / (self.nu * (self.alpha - 1))

    def calibrated(self) -> tuple[Tensor, Tensor]:
        """The logit of gamma, without spread: gamma is already an expectation."""
        return self.mean, torch.zeros_like(self.gamma)

    def select(self, index: Tensor) -> EvidentialPosterior:
        """The posterior of token ``index[n]`` of object n (int64 ``[N]``): K = 1."""
        rows = torch.arange(len(index), device=index.device)
        return EvidentialPosterior(*(getattr(self, field.name)[rows, index][:, None] for field in fields(self)))

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Logits of one draw of y's expectation mu, with its Student t replaced by a normal of the same variance."""
        deviation = (self.beta / (self.nu * (self.alpha - 1))).sqrt()
        noise = torch.randn(self.gamma.shape, generator=generator, device=self.gamma.device)
        return torch.logit((self.gamma + deviation * noise).clamp(MARGIN, 1 - MARGIN))

    def calibrated_sample(self, generator: Generator | None = None) -> Tensor:
        """A draw as it is: nothing scales it."""
        return self.sample(generator)

    def kl(self) -> Tensor:
        """0: the evidence is regularised by the loss instead."""
        return self.gamma.new_zeros(())

    def scores(self) -> dict[str, Tensor]:
        """predictive_variance: u / (1 + u) of the variance u, the baseline's own uncertainty."""
        return {"predictive_variance": self.variance / (1 + self.variance)}


class EvidentialHead(nn.Module):
    """A 1x1 convolution of ``f * w_k`` to four numbers per pixel: gamma, and nu, alpha - 1, beta before a softplus.

    Pixel tokens alone are the same for all masks, so each channel is weighed by the mask token's weight first, as
    in SAM 2's own last layer, whose logit is the sum of these channels. gamma starts as 0.5 + that logit / `SPAN`: at
    first the masks are SAM 2's, up to rounding.

    Trainable parameters: ``4 (c + 1)``, 132 for c = 32.
    """

    SPAN = 10.0
    changes_masks = True

    def __init__(self, config: EvidentialConfig, *, token_dim: int, channels: int):
        super().__init__()
        self.config = config
        self.last = nn.Linear(channels, 4)
        with torch.no_grad():
            self.last.weight.normal_(std=1e-3)
            self.last.weight[0] = 1 / self.SPAN
            # nu 1, alpha 2, beta 0.05: a predictive variance of 0.1
            self.last.bias.copy_(torch.tensor([0.5, *(math.log(math.expm1(start)) for start in (1.0, 1.0, 0.05))]))

    def forward(self, decoded: Decoded) -> EvidentialPosterior:
        with torch.autocast(decoded.pixel_tokens.device.type, enabled=False):
            weights = decoded.mask_weights.float()[:, :, None] * self.last.weight  # [N, K, 4, c]
            bias = self.last.bias.repeat(weights.shape[1]).expand(len(weights), -1)  # [N, K*4]
            raw = inner_product(rearrange(weights, "n k p c -> n (k p) c"), decoded.pixel_tokens.float(), bias)
            gamma, nu, alpha, beta = rearrange(raw, "n (k p) h w -> p n k h w", p=4)
            nu, excess, beta_ = (F.softplus(x) + FLOOR for x in (nu, alpha, beta))
            return EvidentialPosterior(gamma, nu, 1 + excess, beta_, alpha)


def evidential_loss(posterior: EvidentialPosterior, target: Tensor, config: EvidentialLossConfig) -> Tensor:
    """NLL + evidence regulariser + UR term per pixel, unreduced; target of the parameters' shape, in [0, 1].

    ``evidence |y - gamma| (2 nu + alpha)`` asks for little evidence where the mask is wrong. Its slope and the
    likelihood's in alpha pass through the softplus and die where alpha is near 1; ``-ur |y - gamma| raw_alpha`` has the
    same slope everywhere (Ye et al., where it is written ``log(exp(alpha - 1) - 1)``).
    """
    error = (target - posterior.gamma).abs()
    regulariser = config.evidence * error * (2 * posterior.nu + posterior.alpha)
    return nig_nll(posterior, target) + regulariser - config.ur * error * posterior.raw_alpha


def nig_nll(posterior: EvidentialPosterior, target: Tensor) -> Tensor:
    """Negative log-likelihood of `target` under the marginal Student t, per pixel."""
    nu, alpha = posterior.nu, posterior.alpha
    omega = 2 * posterior.beta * (1 + nu)
    return (
        0.5 * torch.log(math.pi / nu)
        - alpha * torch.log(omega)
        + (alpha + 0.5) * torch.log(nu * (target - posterior.gamma).square() + omega)
        + torch.lgamma(alpha)
        - torch.lgamma(alpha + 0.5)
    )
