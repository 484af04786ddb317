"""The bins of the fine histograms, and the bin a value falls into.

Everything is done in float32 arithmetic on whole tensors, which is several times faster than a search in the edges.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

ECE_BINS = 15
PAVPU_NATS = (0.01, 0.05, 0.1)
TAUS = tuple(tau / math.log(2) for tau in PAVPU_NATS)  # u is entropy / ln 2

# Bins are equal in (2 min(x, 1 - x))^(1/4) on either side of 1/2: u and confidence pile up at their ends.
UNCERTAINTY_HALF = 1 << 15  # bins in each half of [0, 1]
CONFIDENCE_HALF = 1 << 13  # bins in [1/2, 1]
_FIRST_ECE_BIN = ECE_BINS // 2  # the one that holds confidence 1/2, the smallest there is

# Cutting the bins further at the taus and at the ECE bins makes counts at those edges exact.
_TAILS = (np.arange(UNCERTAINTY_HALF + 1) / UNCERTAINTY_HALF) ** 4 / 2
UNCERTAINTY_EDGES = np.sort(np.concatenate([_TAILS, 1 - _TAILS[:-1], TAUS]))
_ECE_EDGES = np.arange(_FIRST_ECE_BIN + 1, ECE_BINS) / ECE_BINS
CONFIDENCE_EDGES = np.sort(
    np.concatenate([1 - (np.arange(CONFIDENCE_HALF + 1) / CONFIDENCE_HALF) ** 4 / 2, _ECE_EDGES])
)
UNCERTAINTY_BINS, CONFIDENCE_BINS = len(UNCERTAINTY_EDGES) - 1, len(CONFIDENCE_EDGES) - 1
ECE_BIN_OF = np.ceil((CONFIDENCE_EDGES[1:] + CONFIDENCE_EDGES[:-1]) / 2 * ECE_BINS).astype(np.int64) - 1

# Rank bins follow the floating-point format of min(x, 1 - x): 8 to an octave, 32 octaves on either side of 1/2. Ranks
# need bins where the pixels are, and the logits of background spread over many octaves.
_MANTISSA, _OCTAVES = 3, 32
RANK_HALF = _OCTAVES << _MANTISSA
RANK_BINS = 2 * RANK_HALF
SHIFT = 23 - _MANTISSA
LOWEST = (126 - _OCTAVES) << _MANTISSA  # 126 is the exponent of 1/2


def uncertainty_bin(u: Tensor) -> Tensor:
    """Index into `UNCERTAINTY_EDGES`. All in float: torch.where would take longer than the rest together."""
    index = _position(torch.minimum(u, 1 - u), UNCERTAINTY_HALF).neg_().add_(UNCERTAINTY_HALF - 0.5)
    index = index.copysign_(u - 0.5).add_(UNCERTAINTY_HALF - 0.5)
    for tau in TAUS:
        index += (u - tau).ceil_()  # 1 above tau, else 0
    return index.to(torch.int32)


def confidence_bin(c: Tensor) -> Tensor:
    """Index into `CONFIDENCE_EDGES`."""
    ece_bin = (c * ECE_BINS).ceil_().add_(CONFIDENCE_HALF - 2 - _FIRST_ECE_BIN)
    return ece_bin.sub_(_position(1 - c, CONFIDENCE_HALF)).to(torch.int32)


def rank_bin(x: Tensor) -> Tensor:
    """Place of float32 x in [0, 1] among the `RANK_BINS`; the outermost bins hold the rest beyond 2^-33."""
    place = (torch.minimum(x, 1 - x).view(torch.int32) >> SHIFT).sub_(LOWEST).clamp_(0, RANK_HALF - 1)
    return place.addcmul_((RANK_BINS - 1) - 2 * place, (x > 0.5).to(torch.int32))


def _position(tail: Tensor, bins: int) -> Tensor:
    """Bin of a tail in [0, 1/2], counted from the end 0: whole numbers in ``[0, bins - 1]``, as float."""
    return tail.mul_(2).sqrt_().sqrt_().mul_(bins).floor_().clamp_(max=bins - 1)


NAN = float("nan")
"""A metric without a value."""


def running(values: np.ndarray) -> np.ndarray:
    """Sums of the first 0, 1, ... of `values`, float64."""
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def share(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """``part / whole``, nan where there is no whole."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
