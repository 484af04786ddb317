"""Gradient reversal: one backward pass in which the model descends and the attackers climb."""

from __future__ import annotations

import torch
from torch import Tensor


class _Reverse(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def reverse_gradient(x: Tensor, scale: float = 1.0) -> Tensor:
    """Return `x` itself; its gradient is multiplied by ``-scale`` on the way back (Ganin & Lempitsky, 2015).

    An optimiser that minimises a loss computed from the result maximises it over whatever made `x`,
    while everything applied after this point is minimised as usual.
    """
    return _Reverse.apply(x, scale)
