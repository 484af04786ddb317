"""Weibull distribution: moments, reparameterised samples, divergence from a Gamma prior (paper sec. 3.2, app. A).

Pure functions of tensors that broadcast against each other. ``scale`` is lambda (>= 0), ``shape`` is kappa (> 0).
Half precision is raised to float32 first, since ratios of Gamma functions lose everything in it; float64 stays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import digamma, gammaln
from torch import Generator, Tensor
from torch.autograd.function import once_differentiable

EULER_GAMMA = 0.5772156649015329

LEAST_SHAPE = 0.1
"""Smallest shape that a head may have; see `cv2`."""

SCALE_FLOOR = 1e-3
"""Smallest scale the divergence from the prior looks at; see `kl_gamma`."""


def mean(scale: Tensor, shape: Tensor) -> Tensor:
    """``scale * G(1 + 1/shape)``."""
    scale, shape = _precise(scale), _precise(shape)
    return scale * torch.exp(_log_mean(shape))


def variance(scale: Tensor, shape: Tensor) -> Tensor:
    """``scale^2 * (G(1 + 2/shape) - G(1 + 1/shape)^2)``."""
    return mean(scale, shape).square() * cv2(shape)


def cv2(shape: Tensor) -> Tensor:
    """Squared coefficient of variation, variance / mean^2: ``G(1 + 2/shape) / G(1 + 1/shape)^2 - 1``.

    It depends on the shape alone and falls with it: 5 at 0.5, 1 at 1, 0.08 at 4, 0.014 at 10. A CPU takes polynomials
    for float32, here and wherever the mean is needed, also for slopes: within a relative 1e-5 for shapes from 0.5 on,
    as float32's Gamma functions are for shapes up to 10, and within 1e-4 from `LEAST_SHAPE` on.
    """
    shape = _precise(shape)
    if _by_polynomial(shape):
        return _Cv2.apply(shape) if shape.requires_grad and torch.is_grad_enabled() else _cv2_polynomial(shape)
    return torch.expm1(torch.lgamma(1 + 2 / shape) - 2 * _log_mean(shape))


def scale_from_mean(mean: Tensor, shape: Tensor) -> Tensor:
    """The scale that gives `mean`: ``mean / G(1 + 1/shape)``. Linear, so that the sign of `mean` is kept."""
    mean, shape = _precise(mean), _precise(shape)
    return mean * torch.exp(-_log_mean(shape))


def rsample(scale: Tensor, shape: Tensor, generator: Generator | None = None) -> Tensor:
    """One draw per element of the broadcast shape, ``scale * (-log(1 - u))^(1/shape)``, u uniform.

    Differentiable in both parameters. `generator` must live on the device of `scale`.
    """
    scale, shape = _precise(scale), _precise(shape)
    dtype = torch.promote_types(scale.dtype, shape.dtype)
    size = torch.broadcast_shapes(scale.shape, shape.shape)
    u = torch.rand(size, generator=generator, device=scale.device, dtype=dtype)
    # At u = 0 or 1 the logarithm of the exponential variate is infinite, and so is the gradient of the shape.
    margin = torch.finfo(dtype).eps / 2
    log_exponential = torch.log(-torch.log1p(-u.clamp(margin, 1 - margin)))
    return scale * torch.exp(log_exponential / shape)


def kl_gamma(scale: Tensor, shape: Tensor, a: float = 1.0, b: float = 3.0) -> Tensor:
    """KL(Weibull(scale, shape) || Gamma(shape a, rate b)) per element, in closed form.

    ``g a/k - a ln s + ln k + b s G(1 + 1/k) - g - 1 - a ln b + lgamma(a)`` with Euler's g, scale s and shape k.

    A hard zero of the ReLU has scale 0: a point mass, infinitely far from any density. It counts as if its scale
    were `SCALE_FLOOR`, in every term. The result is then the divergence of a proper Weibull, hence finite and
    >= 0, the slope in the scale is at most ``a / SCALE_FLOOR``, and below the floor it is 0: a unit without
    evidence is neither pulled back nor pushed further away by the prior. The slope in the shape remains.
    """
    scale, shape = _precise(scale).clamp_min(SCALE_FLOOR), _precise(shape)
    constant = math.lgamma(a) - a * math.log(b) - EULER_GAMMA - 1
    return EULER_GAMMA * a / shape - a * torch.log(scale) + torch.log(shape) + b * mean(scale, shape) + constant


def _series(function: Callable[[np.ndarray, np.ndarray], np.ndarray], degree: int = 10) -> list[Tensor]:
    """Coefficients, of rising powers of ``s = 1 / (1 + shape)``, of a function of s and x = 1 / shape that is smooth up
    to s = 0."""

    def of_s(s: np.ndarray) -> np.ndarray:
        return function(s, s / (1 - s))

    series = Chebyshev.interpolate(of_s, degree, [0, 1 / (1 + LEAST_SHAPE)]).convert(kind=Polynomial)
    return [torch.tensor(c, dtype=torch.float32, device="cpu") for c in series.coef]


_LOG_CV2 = _series(lambda s, x: (gammaln(1 + 2 * x) - 2 * gammaln(1 + x)) / (x * s))
# Without Stirling's terms, which grow as a logarithm does and no polynomial can.
_LOG_GAMMA = _series(lambda s, x: (gammaln(1 + x) - (x + 0.5) * np.log1p(x) + x) / s)
_DIGAMMA = _series(lambda s, x: digamma(1 + x) - np.log1p(x))
_DIGAMMAS = _series(lambda s, x: (digamma(1 + 2 * x) - digamma(1 + x)) / s)


def _polynomial(coefficients: list[Tensor], s: Tensor) -> Tensor:
    """Horner's rule, one pass per power; laid out as `s`, without which each pass of maps with channels last takes five
    times as long."""
    value = torch.zeros_like(s).add_(coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        torch.addcmul(coefficient, value, s, out=value)
    return value


def _cv2_polynomial(shape: Tensor) -> Tensor:
    s = torch.reciprocal(1 + shape)
    return _polynomial(_LOG_CV2, s).mul_(s).div_(shape).expm1_()


class _Cv2(torch.autograd.Function):
    """`cv2` in float32 with its slope ``-2 (1 + cv2) (psi(1 + 2/k) - psi(1 + 1/k)) / k^2``, both polynomials."""

    @staticmethod
    def forward(ctx: Any, shape: Tensor) -> Tensor:
        value = _cv2_polynomial(shape)
        ctx.save_for_backward(shape, value)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        shape, value = ctx.saved_tensors
        s = torch.reciprocal(1 + shape)
        return _polynomial(_DIGAMMAS, s).mul_(s).mul_(1 + value).div_(shape.square()).mul_(grad).mul_(-2)


class _LogMean(torch.autograd.Function):
    """`_log_mean` in float32 with its slope ``-psi(1 + 1/k) / k^2``, both polynomials."""

    @staticmethod
    def forward(ctx: Any, shape: Tensor) -> Tensor:
        ctx.save_for_backward(shape)
        s, x = torch.reciprocal(1 + shape), torch.reciprocal(shape)
        return _polynomial(_LOG_GAMMA, s).mul_(s).sub_(x).add_(torch.log1p(x).mul_(x + 0.5))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (shape,) = ctx.saved_tensors
        slope = _polynomial(_DIGAMMA, torch.reciprocal(1 + shape)).add_(torch.log1p(torch.reciprocal(shape)))
        return slope.div_(shape.square()).mul_(grad).neg_()


def _log_mean(shape: Tensor) -> Tensor:
    """Log of ``G(1 + 1/shape)``."""
    return _LogMean.apply(shape) if _by_polynomial(shape) else torch.lgamma(1 + 1 / shape)


def _by_polynomial(shape: Tensor) -> bool:
    """Whether polynomials take the place of Gamma functions and their slopes, of which a CPU makes three to ten times
    as much work."""
    return shape.device.type == "cpu" and shape.dtype == torch.float32


def _precise(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
