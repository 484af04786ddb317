"""The distribution of mask logits: an inner product of two random factors (paper sec. 3.2, app. A)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ruac.uncertainty import weibull
from ruac.uncertainty.local_temperature import LocalScale, scaled

_BLOCK = 1 << 16  # values


@dataclass(frozen=True, eq=False)
class Factor:
    """Independent variables whose sign is known and whose magnitude is Weibull.

    mean: signed mean, float32; where it is 0 the variable is 0 with certainty.
    shape: Weibull kappa, broadcastable to `mean`.
    """

    mean: Tensor
    shape: Tensor

    def variance(self) -> Tensor:
        return self.mean.square() * weibull.cv2(self.shape)

    def sample(self, generator: Generator | None = None) -> Tensor:
        """One reparameterised draw, of the shape of `mean`."""
        # A Weibull sample is linear in its scale, so a signed mean gives a signed sample.
        return weibull.rsample(weibull.scale_from_mean(self.mean, self.shape), self.shape, generator)

    def kl(self, a: float, b: float) -> Tensor:
        """Divergence of the magnitude from Gamma(a, rate b), of the shape of `mean`."""
        return weibull.kl_gamma(weibull.scale_from_mean(self.mean.abs(), self.shape), self.shape, a, b)


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
        squared_mean = self.weight.mean.sum(-2).square()
        parts = []
        for mean, shape in self._blocks():
            squared = mean.square()
            pixel = squared * weibull.cv2(shape)
            if not self.full_variance:
                parts.append(inner_product(weight, pixel))
            else:  # Var z Var d + Var d (E z)^2 and Var z (E d)^2
                parts.append(inner_product(weight, pixel + squared) + inner_product(squared_mean, pixel))
        return torch.cat(parts, dim=2)

    def _blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Mean and shape of the image tokens, a few rows at a time where that keeps them in a CPU's cache: dozens of
        megabytes for each intermediate result take longer to get from the system than to fill."""
        mean, shape = self.pixel.mean, self.pixel.shape
        rows = max(mean.shape[2], 1)
        if mean.device.type == "cpu" and not torch.is_grad_enabled():
            rows = max(1, min(rows, _BLOCK * rows // max(mean.numel(), 1)))
        return zip(mean.split(rows, 2), shape.split(rows, 2), strict=True)

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
        pixel = self.pixel.kl(*self.prior).sum(1)  # [N, h, w]
        weight = self.weight.kl(*self.prior).sum((-2, -1))  # [N, K]
        return pixel.sum() / max(pixel.numel(), 1) + weight.sum() / max(weight.numel(), 1)

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
