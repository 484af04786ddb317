"""Proper scoring of the analytic probability, the one that the uncertainty maps show.

A proper score is lowest, on average, for the true probability, so it teaches the variance where masks are wrong
and punishes variance where they are right. Per pixel and not reduced, in float32 or better.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ruac.uncertainty import probit_logit


def cross_entropy_score(mean: Tensor, variance: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy in nats. All of one shape; `target` is bool or float in [0, 1].

    Evaluated on the logit, so that confident pixels neither overflow nor lose their gradient.
    """
    logit = probit_logit(mean, variance)
    return F.binary_cross_entropy_with_logits(logit, target.to(logit.dtype), reduction="none")
