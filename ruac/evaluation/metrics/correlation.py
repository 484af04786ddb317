"""Correlation of uncertainty with error, from sums and from joint counts; nan where one of them does not vary."""

from __future__ import annotations

import numpy as np

from ruac.evaluation.metrics.bins import NAN


def pearson(count: int, x: int, y: int, xx: int, yy: int, xy: int, *, scale: int) -> float:
    """Pearson correlation from sums of x, y, x^2, y^2, xy, each in units of 1/scale; exact integer arithmetic.

    nan if a variance is not above the resolution 1/scale of the sums.
    """
    var_x, var_y = count * scale * xx - x * x, count * scale * yy - y * y
    if min(var_x, var_y) <= count * count * scale:
        return NAN
    return float(np.clip((count * scale * xy - x * y) / (float(var_x) ** 0.5 * float(var_y) ** 0.5), -1, 1))


def spearman(ranks: np.ndarray) -> float:
    """Spearman correlation of two quantities from their joint histogram ``[A, B]``, bins ascending.

    All pixels of a bin share its mean rank, as ties do; exact if each bin holds one value only. With the shares a_i and
    b_j of the marginal bins, the rank covariance in units of 1/12 is off by at most ``sqrt(sum a_i^3) + sqrt(sum
    b_j^3)`` plus their product (Cauchy-Schwarz), and in practice by its square, since within a bin the ranks of one
    quantity hardly follow the other. nan if one of them is all ties.
    """
    total = ranks.sum()
    shares = [ranks.sum(axis) / max(total, 1) for axis in (1, 0)]
    x, y = (np.cumsum(share) - share / 2 - 0.5 for share in shares)  # mean ranks, centred
    var_x, var_y = (float(share @ rank**2) for share, rank in zip(shares, (x, y), strict=True))
    if min(var_x, var_y) <= 1e-15:
        return NAN
    return float(np.clip(x @ ranks @ y / total / (var_x * var_y) ** 0.5, -1, 1))
