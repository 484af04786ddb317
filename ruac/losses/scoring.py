"""Proper scoring of the analytic probability ``sigmoid(mean / sqrt(1 + pi variance / 8))`` (MacKay 1992).

A proper score is lowest, on average, for the true probability, so it teaches the variance where masks are wrong
and punishes variance where they are right. Both scores are per pixel and not reduced, in float32 or better.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy_score(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy in nats. All of one shape; `target` is bool or float in [0, 1].

    Evaluated on the logit, so that confident pixels neither overflow nor lose their gradient.
    """
    logit = _probit_logit(mean, variance)
    return F.binary_cross_entropy_with_logits(logit, target.to(logit.dtype), reduction="none")


def brier_score(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Squared error of the probability, in [0, 1]. All of one shape; `target` is bool or float in [0, 1]."""
    probability = torch.sigmoid(_probit_logit(mean, variance))
    return (probability - target.to(probability.dtype)).square()


def _probit_logit(mean: Tensor, variance: Tensor) -> Tensor:
    dtype = torch.float64 if mean.dtype == torch.float64 else torch.float32
    return mean.to(dtype) * torch.rsqrt(1 + math.pi / 8 * variance.to(dtype))
