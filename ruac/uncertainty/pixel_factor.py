"""The image-token factor of a head, whose shapes are read off the pixels when somebody asks for them.

Most answers are one mask of four, and of that one only the variance is looked at. So nothing is computed with the
answer; and on a CPU, without gradients, no map of a channel's moments is ever stored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ruac.uncertainty import weibull
from ruac.uncertainty.posterior import Factor

MOST = 1000.0  # largest shape that a table of the moments reaches, see `compiled.cv2_table`
LEAST = 0.5  # smallest shape of which `compiled_slopes` knows the moments
_GROUP = 1 << 21  # values of the objects that are read together: of a size that an allocator has at hand


@dataclass(frozen=True, eq=False)
class ShapeReader:
    """network: features ``[N, c, h, w]`` to what softplus makes shapes of, ``[N, c or 1, h, w]``. least, most: of the
    shapes. pool: side of the squares of pixels that share one, which is read off their mean."""

    network: nn.Module
    least: float
    most: float
    pool: int = 1

    def raw(self, features: Tensor) -> Tensor:
        """Before softplus and bounds; one value for each square."""
        with torch.autocast(features.device.type, enabled=False):
            if self.pool > 1:
                features = F.avg_pool2d(features, self.pool, ceil_mode=True, count_include_pad=False)
            return self.network(features)

    def shapes(self, features: Tensor) -> Tensor:
        """Of the squares."""
        return bounded_shape(self.raw(features), self.least, self.most)

    def of_pixels(self, squares: Tensor, size: tuple[int, int]) -> Tensor:
        """What each square has for each of its pixels."""
        if self.pool == 1:
            return squares
        return squares.repeat_interleave(self.pool, 2).repeat_interleave(self.pool, 3)[..., : size[0], : size[1]]


class PixelFactor(Factor):
    """mean, features: ``float32 [N, c, h, w]``; `reader` reads the shapes off the features."""

    def __init__(self, mean: Tensor, features: Tensor, reader: ShapeReader):
        for name, value in (("mean", mean), ("features", features), ("reader", reader)):
            object.__setattr__(self, name, value)  # frozen, as every factor

    @cached_property
    def _squares(self) -> Tensor:
        return self.reader.shapes(self.features)

    @cached_property
    def shape(self) -> Tensor:
        """``[N, c or 1, h, w]``."""
        return self.reader.of_pixels(self._squares, self.mean.shape[-2:])

    def cv2(self) -> Tensor:
        return self.reader.of_pixels(weibull.cv2(self._squares), self.mean.shape[-2:])

    def weighted_squares(self, spread: Tensor, still: Tensor) -> Tensor:
        read = self.reader
        if self.mean.device.type != "cpu" or read.most > MOST or not self.mean.numel():
            return super().weighted_squares(spread, still)
        if torch.is_grad_enabled():
            if not self._learns or self._squares.shape != self.mean.shape:  # few shapes are little work
                return super().weighted_squares(spread, still)
            from ruac.uncertainty.compiled_slopes import WeightedSquares, moments  # numba takes long to import

            return WeightedSquares.apply(self.mean, self.shape, spread, still, moments(read.least, read.most))
        from ruac.uncertainty.compiled import cv2_table, pooled, weighted_squares

        table, found = cv2_table(read.least, read.most), []
        group = max(1, _GROUP // self.mean[0].numel())
        parts = (x.split(group) for x in (self.mean, self.features, spread, still))
        for mean, features, *weights in zip(*parts, strict=True):
            with torch.autocast("cpu", enabled=False):
                raw = read.network(pooled(features, read.pool))
            found.append(weighted_squares(mean, raw, read.pool, table, *weights))
        return torch.cat(found) if len(found) > 1 else found[0]

    def total_kl(self, a: float, b: float) -> Tensor:
        if not self._learns:
            return super().total_kl(a, b)
        from ruac.uncertainty.compiled_slopes import Divergence, moments

        known = moments(self.reader.least, self.reader.most)
        return Divergence.apply(self.mean, self.shape.expand_as(self.mean), a, b, known)

    @property
    def _learns(self) -> bool:
        """Whether slopes are wanted, which an export's trace never does, and `compiled_slopes` knows such shapes."""
        bounds = self.reader.least >= LEAST and self.reader.most <= MOST
        return bounds and self.mean.device.type == "cpu" and self.mean.numel() > 0 and self._squares.requires_grad


def bounded_shape(raw: Tensor, least: float, most: float) -> Tensor:
    """Shapes from what a layer says: softplus, then a clamp whose gradient vanishes only where a descent step would
    lead further outside.

    A plain clamp has no gradient at all beyond its bounds, and a shape that overshot would stay there for good;
    an identity gradient would let it drift away without limit.
    """
    return _BoundedShape.apply(raw, least, most) if raw.requires_grad else F.softplus(raw).clamp_(least, most)


class _BoundedShape(torch.autograd.Function):
    """One function, so that of a map of shapes only the layer's answer is kept for the way back."""

    @staticmethod
    def forward(ctx: Any, raw: Tensor, least: float, most: float) -> Tensor:
        ctx.save_for_backward(raw)
        ctx.bounds = tuple(shape + math.log(-math.expm1(-shape)) for shape in (least, most))  # of raw
        return F.softplus(raw).clamp_(least, most)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (raw,) = ctx.saved_tensors
        outward = raw.clamp(*ctx.bounds).sub_(raw).mul_(grad)  # positive where a step down leads further out
        return torch.sigmoid(raw).mul_(grad).masked_fill_(outward > 0, 0), None, None
