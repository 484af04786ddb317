"""The distribution of mask logits that are linear in random last-layer weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ruac.uncertainty.local_temperature import LocalScale, scaled
from ruac.uncertainty.posterior import inner_product


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearPosterior:
    """Logits ``l_k = mean_k + sum_r z_r (<f, d_kr> + b_r)``, z of R independent variables of mean 0 and variance 1.

    What a covariance ``sum_r d_r d_r^T`` of the weights of the last inner product does to its result, exactly. z
    is one for all pixels, tokens and objects, as the weights are.

    mean: ``[N, K, h, w]``. pixel: f ``[N, c, h, w]``. directions: d ``[N, K, R, c]``; R = 0 is no spread.
    offsets: b ``[R]``, of a random bias, or None. scale, local_scale: of `calibrated`, a positive scalar and one per
    pixel, or None.
    """

    mean: Tensor
    pixel: Tensor
    directions: Tensor
    offsets: Tensor | None = None
    scale: Tensor | None = None
    local_scale: LocalScale | None = None

    @property
    def variance(self) -> Tensor:
        """``[N, K, h, w]``, computed at each access: R inner products."""
        with torch.autocast(self.pixel.device.type, enabled=False):
            spread = torch.einsum("nkrc,nchw->nkrhw", self.directions, self.pixel)
            if self.offsets is not None:
                spread = spread + self.offsets[:, None, None]
            return spread.square().sum(2)

    def calibrated(self) -> tuple[Tensor, Tensor]:
        """Mean and variance ``[N, K, h, w]``, times the learned scales if there are any. Masks come from `mean`."""
        return scaled(self.mean, self.variance, self.scale, self.local_scale)

    def select(self, index: Tensor) -> LinearPosterior:
        """The posterior of token ``index[n]`` of object n (int64 ``[N]``): K = 1."""
        rows = torch.arange(len(index), device=index.device)
        return replace(
            self,
            mean=self.mean[rows, index][:, None],
            directions=self.directions[rows, index][:, None],
            local_scale=None if self.local_scale is None else self.local_scale.select(index),
        )

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Logits ``[N, K, h, w]`` of one draw with normal z."""
        z = torch.randn(self.directions.shape[2], generator=generator, device=self.mean.device)
        logits = self.mean + inner_product(torch.einsum("nkrc,r->nkc", self.directions, z), self.pixel)
        return logits if self.offsets is None else logits + self.offsets @ z

    def calibrated_sample(self, generator: Generator | None = None) -> Tensor:
        """A draw times the learned scales, as `calibrated` multiplies mean and deviation."""
        draw = self.sample(generator)
        return scaled(draw, draw.new_zeros(()), self.scale, self.local_scale)[0]

    def kl(self) -> Tensor:
        """0: its spread is not fitted against a prior by gradient."""
        return self.mean.new_zeros(())

    def scores(self) -> dict[str, Tensor]:
        """No uncertainty of its own beside the entropy."""
        return {}
