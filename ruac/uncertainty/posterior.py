"""The distribution of mask logits: an inner product of two random factors (paper sec. 3.2, app. A)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ruac.uncertainty import weibull
from ruac.uncertainty.local_temperature import LocalScale, scaled


@dataclass(frozen=True, eq=False)
class Factor:
    """Independent variables whose sign is known and whose magnitude is Weibull.

    mean: signed mean, float32; where it is 0 the variable is 0 with certainty.
    shape: Weibull kappa, broadcastable to `mean`.
    """

    mean: Tensor
    shape: Tensor

    def cv2(self) -> Tensor:
        """Squared coefficient of variation, of the shape of `shape`."""
        return weibull.cv2(self.shape)

    def variance(self) -> Tensor:
        return self.mean.square() * self.cv2()

    def weighted_squares(self, spread: Tensor, still: Tensor) -> Tensor:
        """``sum_c mean_c^2 (spread_kc cv2_c + still_kc)``, ``[N, K, h, w]``, of image tokens ``[N, c, h, w]`` and
        weights ``[N, K, c]``."""
        squared = self.mean.square()
        return inner_product(spread, squared * self.cv2()) + inner_product(still, squared)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """One reparameterised draw, of the shape of `mean`."""
        # A Weibull sample is linear in its scale, so a signed mean gives a signed sample.
        return weibull.rsample(weibull.scale_from_mean(self.mean, self.shape), self.shape, generator)

    def kl(self, a: float, b: float) -> Tensor:
        """Divergence of the magnitude from Gamma(a, rate b), of the shape of `mean`."""
        return weibull.kl_gamma(weibull.scale_from_mean(self.mean.abs(), self.shape), self.shape, a, b)

    def total_kl(self, a: float, b: float) -> Tensor:
        """Scalar: the sum of `kl`."""
        return self.kl(a, b).sum()


@dataclass(frozen=True, eq=False, kw_only=True)
class Posterior:
    """Logits ``l_k = sum_c z_c d_kc + b_k`` of K mask tokens for N objects, with z and d random.

    z, the image-token factor, is shared by the tokens; ``d_kc = sum_s w_ksc`` adds up S independent signed terms:
    S = 1 for the signed head, S = 2 for the non-negative one, ``(w_fg, -w_bg)``. Writing the difference first and
    multiplying by z afterwards is what makes the variance exact although both terms share the same z.

    mean: ``[N, K, h, w]``. pixel: z ``[N, c, h, w]``. weight: w ``[N, K, S, c]``. bias: ``[N, K]`` or None.
    scale: positive scalar of `calibrated`, or None. local_scale: one per pixel and token beside it, or None.
    full_variance: False keeps Var z Var d only (paper eq. S9).
    prior: shape and rate of the Gamma prior of every magnitude.
    """

    mean: Tensor
    pixel: Factor
    weight: Factor
    bias: Tensor | None = None
    scale: Tensor | None = None
    local_scale: LocalScale | None = None
    full_variance: bool = True
    prior: tuple[float, float] = (1.0, 3.0)

    @property
    def variance(self) -> Tensor:
        """``[N, K, h, w]``: per channel ``Var z Var d + Var z (E d)^2 + Var d (E z)^2`` (paper eq. S8), summed.

        Computed at each access and not before, at the cost of two inner products.
        """
        weight = self.weight.variance().sum(-2)
        if not self.full_variance:
            return self.pixel.weighted_squares(weight, torch.zeros_like(weight))
        # In terms of (E z)^2: Var z (Var d + (E d)^2) and Var d alone.
        return self.pixel.weighted_squares(weight + self.weight.mean.sum(-2).square(), weight)

    def calibrated(self) -> tuple[Tensor, Tensor]:
        """Mean and variance ``[N, K, h, w]`` for probabilities and uncertainty: times the learned scales, if any.

        Masks are always taken from `mean`, whose sign no scale changes.
        """
        return scaled(self.mean, self.variance, self.scale, self.local_scale)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Logits ``[N, K, h, w]`` of one reparameterised draw of both factors."""
        pixel = self.pixel.sample(generator)
        weight = self.weight.sample(generator).sum(-2)
        return inner_product(weight, pixel, self.bias)

    def calibrated_sample(self, generator: Generator | None = None) -> Tensor:
        """A draw times the learned scales, as `calibrated` multiplies mean and deviation."""
        draw = self.sample(generator)
        return scaled(draw, draw.new_zeros(()), self.scale, self.local_scale)[0]

    def kl(self) -> Tensor:
        """Scalar: divergence of both factors from the prior, each summed over its channels and then averaged.

        The image-token factor is averaged over objects and pixels, the mask-token factor over objects and tokens.
        Zero for a batch without objects.
        """
        pixels, tokens = self.pixel.mean[:, 0].numel(), self.weight.mean[..., 0, 0].numel()
        pixel, weight = self.pixel.total_kl(*self.prior), self.weight.total_kl(*self.prior)
        return pixel / max(pixels, 1) + weight / max(tokens, 1)

    def scores(self) -> dict[str, Tensor]:
        """No uncertainty of its own beside the entropy."""
        return {}

    def select(self, index: Tensor) -> Posterior:
        """The posterior of token ``index[n]`` of object n (int64 ``[N]``): K = 1, so a quarter of the work."""
        rows = torch.arange(len(index), device=index.device)

        def pick(x: Tensor) -> Tensor:
            return x[rows, index].unsqueeze(1)

        return replace(
            self,
            mean=pick(self.mean),
            weight=Factor(pick(self.weight.mean), pick(self.weight.shape)),
            bias=None if self.bias is None else pick(self.bias),
            local_scale=None if self.local_scale is None else self.local_scale.select(index),
        )


def inner_product(weight: Tensor, pixel: Tensor, bias: Tensor | None = None) -> Tensor:
    """``[N, K, c]`` with ``[N, c, h, w]`` -> ``[N, K, h, w]``, plus ``bias [N, K]``; never in half precision."""
    with torch.autocast(pixel.device.type, enabled=False):
        logits = torch.einsum("nkc,nchw->nkhw", weight, pixel)
    return logits if bias is None else logits + bias[..., None, None]
