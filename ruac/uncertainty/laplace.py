"""A Laplace approximation of SAM 2's last layer (Daxberger et al., 2021): a well-known reference.

Written out here because the last layer is an inner product of two outputs of the network, one of them per object,
under a Bernoulli likelihood per pixel: laplace-torch 0.3 expects an ``nn.Linear`` under a softmax or a Gaussian. What
is left is a 33 x 33 matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ruac.uncertainty.head import ScaledHeadConfig
from ruac.uncertainty.linear import LinearPosterior

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded


@dataclass
class LaplaceConfig(ScaledHeadConfig):
    """Nothing of its own beside the logit scale, which is all that gradients train."""

    posterior: str = "laplace"


class LaplaceHead(nn.Module):
    """``l_k = <f * w_k, a> + b`` with random ``(a, b)`` in R^(c+1), shared by all objects and tokens.

    Post hoc: SAM 2 itself is taken as the mode, a = 1 and b = 0, so that masks and mean are its own to the last
    bit. The covariance is ``(H + tau I)^-1``, where H adds up the generalised Gauss-Newton matrix
    ``p (1-p) phi phi^T``, ``phi = (f * w_k, 1)``, over what `observe` was shown, and tau maximises the marginal
    likelihood. ``Var l = phi^T (H + tau I)^-1 phi``.

    The pixels of a mask are far from independent: counted one by one they would leave no variance at all. So H
    takes their mean, which makes an object one observation.

    The one trainable parameter is the logit scale; H is a sum over training data, not learned by gradient.
    """

    changes_masks = False

    def __init__(self, config: LaplaceConfig, *, token_dim: int, channels: int):
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.zeros(())) if config.logit_scale else None
        self.register_buffer("curvature", torch.zeros(channels + 1, channels + 1))
        self.register_buffer("root", torch.zeros(channels + 1, channels + 1))  # of the covariance; 0: nothing observed

    def forward(self, decoded: Decoded) -> LinearPosterior:
        with torch.autocast(decoded.pixel_tokens.device.type, enabled=False):
            weights = decoded.mask_weights.float()  # [N, K, c]
            return LinearPosterior(
                mean=decoded.logits.float(),
                pixel=decoded.pixel_tokens.float(),
                directions=weights[:, :, None] * self.root[:-1].T,  # [N, K, R, c]
                offsets=self.root[-1].clone(),  # `observe` renews it in place
                scale=None if self.log_scale is None else self.log_scale.exp(),
            )

    @torch.no_grad()
    def observe(self, decoded: Decoded, choice: Tensor) -> None:
        """Add the curvature of N answers, of token ``choice[n]`` (int64 ``[N]``), and renew the covariance.

        Under `torch.distributed` every process adds what all have seen.
        """
        with torch.autocast(decoded.pixel_tokens.device.type, enabled=False):
            rows = torch.arange(len(choice), device=choice.device)
            weights = decoded.mask_weights.float()[rows, choice][..., None]  # [N, c, 1]
            phi = F.pad(
                weights * rearrange(decoded.pixel_tokens.float(), "n c h w -> n c (h w)"), (0, 0, 0, 1), value=1
            )
            p = decoded.logits.float()[rows, choice].sigmoid().flatten(1)  # [N, h*w]
            seen = torch.einsum("np,ncp,ndp->cd", p * (1 - p) / p.shape[1], phi, phi)
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.all_reduce(seen)
            self.curvature += seen
            values, vectors = torch.linalg.eigh(self.curvature)
            values = values.clamp_min(0)
            self.root.copy_(vectors * torch.rsqrt(values + prior_precision(values, mode=len(values) - 1)))


def prior_precision(curvature: Tensor, *, mode: float, iterations: int = 50) -> Tensor:
    """The precision tau of the prior ``N(0, I / tau)`` that maximises the marginal likelihood of Laplace.

    curvature: eigenvalues of H, ``[d]``, >= 0. mode: squared length of the mode. The maximum satisfies
    ``tau mode = sum_i h_i / (h_i + tau)`` (MacKay 1992). Damped by a geometric mean, which
    converges whether the data or the prior decide; the undamped step oscillates for small curvature.
    """
    tau = torch.ones((), dtype=curvature.dtype, device=curvature.device)
    for _ in range(iterations):
        tau = (tau * (curvature / (curvature + tau)).sum() / mode).sqrt()
    return tau
