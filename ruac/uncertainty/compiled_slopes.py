"""The variance and the divergence of image tokens with their slopes, in one pass each, compiled for the CPU.

Where a head learns, whole-tensor operations take dozens of passes over every channel of every pixel, and keep the
results of many of them for the way back. Here the Gamma functions are polynomials and only the shapes are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import digamma, gammaln
from torch import Tensor
from torch.autograd.function import once_differentiable

from ruac.base.compiled import FAST, compiled, in_parts
from ruac.uncertainty.weibull import EULER_GAMMA, SCALE_FLOOR

_DEGREE = 14  # values and slopes are within a relative 1e-5 for shapes from 0.5 on
_AT_ONCE = 16  # numbers whose logarithm is taken as one: with squares in float32, their product has room in double

Coefficients = tuple[np.float32, ...]  # of falling powers


class Moments(NamedTuple):
    """Functions of ``u = slope / (1 + shape) + offset`` in [-1, 1], with x = 1 / shape."""

    place: tuple[np.float32, np.float32]  # slope and offset
    cv2: Coefficients  # over x^2
    cv2_slope: Coefficients  # in the shape, over x^3
    mean: Coefficients  # G(1 + x)
    digamma: Coefficients  # of 1 + x


@lru_cache(maxsize=8)
def moments(least: float, most: float) -> Moments:
    """For shapes between the bounds, of which the lower is at least 0.5."""
    first, last = 1 / (1 + most), 1 / (1 + least)

    def fitted(function: Callable[[np.ndarray], np.ndarray]) -> Coefficients:
        def of_u(u: np.ndarray) -> np.ndarray:
            s = first + (last - first) * (u + 1) / 2
            return function(s / (1 - s))

        series = Chebyshev.interpolate(of_u, _DEGREE, [-1, 1]).convert(kind=Polynomial)
        return tuple(np.float32(value) for value in series.coef[::-1])

    def cv2(x: np.ndarray) -> np.ndarray:
        return np.expm1(gammaln(1 + 2 * x) - 2 * gammaln(1 + x))

    return Moments(
        place=(np.float32(2 / (last - first)), np.float32(-(last + first) / (last - first))),
        cv2=fitted(lambda x: cv2(x) / x**2),
        cv2_slope=fitted(lambda x: -2 * (1 + cv2(x)) * (digamma(1 + 2 * x) - digamma(1 + x)) / x),
        mean=fitted(lambda x: np.exp(gammaln(1 + x))),
        digamma=fitted(lambda x: digamma(1 + x)),
    )


class WeightedSquares(torch.autograd.Function):
    """``sum_c mean_c^2 (spread_kc cv2(shape_c) + still_kc)``, ``float32 [N, K, h, w]``.

    mean, shape: ``float32 [N, c, h, w]``, the latter within the bounds of `known`. spread, still: ``[N, K, c]``.
    """

    @staticmethod
    def forward(ctx: Any, mean: Tensor, shape: Tensor, spread: Tensor, still: Tensor, known: Moments) -> Tensor:
        ctx.save_for_backward(mean, shape, spread, still)
        ctx.known = known
        out = torch.empty(len(mean), spread.shape[1], *mean.shape[2:])
        arguments = (_last(mean), _last(shape), known.place, known.cv2, _rows(spread), _rows(still), out.numpy())
        _by_lines(mean, lambda start, stop: _variance(*arguments, start, stop))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mean, shape, spread, still = ctx.saved_tensors
        for_mean, for_shape = torch.empty_like(_laid(mean)), torch.empty_like(_laid(shape))
        sums = np.empty((2, mean.shape[0] * mean.shape[2], *spread.shape[1:]), np.float32)
        known, wanted = ctx.known, ctx.needs_input_grad[0]
        arguments = (_last(mean), _last(shape), known.place, known.cv2, known.cv2_slope, _rows(spread), _rows(still))
        results = (_rows(grad), wanted, _last(for_mean), _last(for_shape), sums)
        _by_lines(mean, lambda start, stop: _variance_slopes(*arguments, *results, start, stop))
        for_spread, for_still = torch.from_numpy(sums).unflatten(1, (mean.shape[0], -1)).sum(2)
        return for_mean if wanted else None, for_shape, for_spread, for_still, None


class Divergence(torch.autograd.Function):
    """Sum of `weibull.kl_gamma` over the magnitudes of mean and shape ``float32 [N, c, h, w]``, as above."""

    @staticmethod
    def forward(ctx: Any, mean: Tensor, shape: Tensor, a: float, b: float, known: Moments) -> Tensor:
        ctx.save_for_backward(mean, shape)
        ctx.known, ctx.prior = known, (a, b)
        total = np.empty(mean.shape[0] * mean.shape[2])
        arguments = (_lines(mean), _lines(shape), known.place, known.mean, a, b, total)
        _by_lines(mean, lambda start, stop: _divergence(*arguments, start, stop))
        constant = math.lgamma(a) - a * math.log(b) - EULER_GAMMA - 1
        return torch.tensor(total.sum() + constant * mean.numel(), dtype=mean.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        mean, shape = ctx.saved_tensors
        for_mean, for_shape = torch.empty_like(_laid(mean)), torch.empty_like(_laid(shape))
        known, wanted = ctx.known, ctx.needs_input_grad[0]
        arguments = (_lines(mean), _lines(shape), known.place, known.mean, known.digamma, *ctx.prior)
        results = (np.float32(grad), wanted, _lines(for_mean), _lines(for_shape))
        _by_lines(mean, lambda start, stop: _divergence_slopes(*arguments, *results, start, stop))
        return for_mean if wanted else None, for_shape, None, None, None


def _laid(maps: Tensor) -> Tensor:
    """With channels last, as the decoder leaves several objects."""
    return maps.detach().contiguous(memory_format=torch.channels_last)


def _last(maps: Tensor) -> np.ndarray:
    return _laid(maps).permute(0, 2, 3, 1).contiguous().numpy()


def _lines(maps: Tensor) -> np.ndarray:
    """``[N * h, w * c]``."""
    return _last(maps).reshape(maps.shape[0] * maps.shape[2], -1)


def _rows(x: Tensor) -> np.ndarray:
    return x.detach().float().contiguous().numpy()


def _by_lines(mean: Tensor, work: Callable[[int, int], None]) -> None:
    """Lines of pixels, counted through all objects."""
    in_parts(work, mean.shape[0] * mean.shape[2])


# One loop over the channels for each step, without branches: the compiler makes eight numbers at a time of them.


@njit(inline="always")
def _polynomial(u, coefficients):
    value = coefficients[0]
    for power in range(1, len(coefficients)):
        value = value * u + coefficients[power]
    return value


def _variance_lines(x, shape, place, cv2_over, spread, still, out, start, stop):
    height, width, channels = x.shape[1:]
    tokens, one = spread.shape[1], np.float32(1)
    moving, resting = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for line in range(start, stop):
        n, i = line // height, line % height
        for j in range(width):
            for c in range(channels):
                kappa, value = shape[n, i, j, c], x[n, i, j, c]
                u = place[0] * (one / (one + kappa)) + place[1]
                resting[c] = value * value
                moving[c] = value * value * _polynomial(u, cv2_over) / (kappa * kappa)
            for t in range(tokens):
                total = np.float32(0)
                for c in range(channels):
                    total += moving[c] * spread[n, t, c] + resting[c] * still[n, t, c]
                out[n, t, i, j] = total


def _variance_slope_lines(
    x, shape, place, cv2_over, slope_over, spread, still, grad, wanted, for_x, for_shape, sums, start, stop
):
    height, width, channels = x.shape[1:]
    tokens, one = spread.shape[1], np.float32(1)
    squared, cv2 = np.empty(channels, np.float32), np.empty(channels, np.float32)
    moving, resting = np.empty(channels, np.float32), np.empty(channels, np.float32)
    for line in range(start, stop):
        n, i = line // height, line % height
        sums[:, line] = 0
        for j in range(width):
            moving[:] = 0
            resting[:] = 0
            for t in range(tokens):
                g = grad[n, t, i, j]
                for c in range(channels):
                    moving[c] += g * spread[n, t, c]
                    resting[c] += g * still[n, t, c]
            for c in range(channels):
                kappa, value = shape[n, i, j, c], x[n, i, j, c]
                inverse = one / kappa
                u = place[0] * (one / (one + kappa)) + place[1]
                square = value * value
                squared[c] = square
                cv2[c] = _polynomial(u, cv2_over) * inverse * inverse
                slope = _polynomial(u, slope_over) * inverse * inverse * inverse
                for_shape[n, i, j, c] = square * moving[c] * slope
            if wanted:
                for c in range(channels):
                    for_x[n, i, j, c] = np.float32(2) * x[n, i, j, c] * (cv2[c] * moving[c] + resting[c])
            for t in range(tokens):
                g = grad[n, t, i, j]
                for c in range(channels):
                    sums[0, line, t, c] += g * squared[c] * cv2[c]
                    sums[1, line, t, c] += g * squared[c]


def _divergence_lines(x, shape, place, mean, a, b, total, start, stop):
    count, groups = x.shape[1], -(-x.shape[1] // _AT_ONCE)
    one, least, rate = np.float32(1), np.float32(SCALE_FLOOR), np.float32(b)
    euler = np.float32(EULER_GAMMA * a)
    terms = np.empty(count, np.float32)
    scales, shapes = np.ones(_AT_ONCE * groups, np.float32), np.ones(_AT_ONCE * groups, np.float32)
    for line in range(start, stop):
        for e in range(count):
            kappa, size = shape[line, e], abs(x[line, e])
            gamma = _polynomial(place[0] * (one / (one + kappa)) + place[1], mean)
            scale = size / gamma
            scale = least if scale < least else scale  # a comparison that what is no number passes
            terms[e] = euler / kappa + rate * scale * gamma
            scales[e] = scale
            shapes[e] = kappa
        found = 0.0
        for e in range(count):
            found += terms[e]
        for g in range(groups):
            scale, kappa = 1.0, 1.0  # products
            for q in range(_AT_ONCE):
                scale *= scales[q * groups + g]
                kappa *= shapes[q * groups + g]
            found += math.log(kappa) - a * math.log(scale)
        total[line] = found


def _divergence_slope_lines(x, shape, place, mean, psi, a, b, grad, wanted, for_x, for_shape, start, stop):
    one, zero = np.float32(1), np.float32(0)
    least, prior, rate = np.float32(SCALE_FLOOR), np.float32(a), np.float32(b)
    euler = np.float32(EULER_GAMMA * a)
    floors = np.empty(x.shape[1], np.float32)
    for line in range(start, stop):
        for e in range(x.shape[1]):
            kappa = shape[line, e]
            inverse = one / kappa
            u = place[0] * (one / (one + kappa)) + place[1]
            floor = least * _polynomial(u, mean)
            # The shape moves the scale where that is not floored, and else the mean of the least scale.
            held = rate * floor if abs(x[line, e]) < floor else prior
            for_shape[line, e] = grad * (inverse - (euler + held * _polynomial(u, psi)) * inverse * inverse)
            floors[e] = floor
        if wanted:
            for e in range(x.shape[1]):
                value = x[line, e]
                size = abs(value)
                slope = zero if size < floors[e] else grad * (rate - prior / size)
                for_x[line, e] = slope if value > zero else -slope


_variance = compiled(_variance_lines, fastmath=FAST)
_variance_slopes = compiled(_variance_slope_lines, fastmath=FAST)
_divergence = compiled(_divergence_lines, fastmath=FAST)
_divergence_slopes = compiled(_divergence_slope_lines, fastmath=FAST)
