"""From losses over a grid of thresholds to the threshold that keeps the risk: in expectation, or with high confidence.

A grid runs from bold to safe: the last threshold is the safest, such as the one that calls everything object.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.special import bdtr, xlogy

from ruac.base.errors import RuacError
from ruac.conformal.quantile import check_alpha


def control_risk(mean: np.ndarray, count: int, alpha: float) -> int:
    """Conformal risk control (Angelopoulos et al., 2022, eq. 4): place of the boldest threshold that may be used.

    If the n images and a new one are exchangeable, and every image's loss lies in [0, 1] and never grows towards the
    safe end, the expected loss of the new image at this threshold is at most alpha; where losses do not jump, it is
    also at least ``alpha - 2 / (n + 1)``. The expectation is over calibration images and the new one alike.

    mean: ``[L]``, mean loss of n = `count` images at each threshold, bold to safe, never growing. Raises `RuacError`
    where even the safest threshold does not reach alpha.
    """
    check_alpha(alpha)
    return _first(count / (count + 1) * np.asarray(mean) + 1 / (count + 1) <= alpha + 1e-12, alpha, count)


def control_weighted(losses: np.ndarray, weights: np.ndarray, own: float, alpha: float) -> int | None:
    """`control_risk` under a shift of inputs alone (Angelopoulos et al., 2022, prop. 3).

    losses: ``[n, L]``. weights: ``[n]``, the likelihood ratio of each image. own: that of the new image, whose loss
    counts as 1. None where no threshold reaches alpha: then only the trivial answer is safe.
    """
    check_alpha(alpha)
    risk = (weights @ losses + own) / (weights.sum() + own)
    safe = risk <= alpha + 1e-12
    return int(safe.argmax()) if safe.any() else None


def learn_then_test(mean: np.ndarray, count: int, alpha: float, delta: float) -> int:
    """Learn then test (Angelopoulos et al., 2021): place of the boldest threshold certified from the safe end on.

    With a probability of at least 1 - delta over the n calibration images, the risk at this threshold, over new
    images from the same source, is at most alpha. Losses need not fall towards the safe end. Thresholds are tested
    in a fixed sequence, each at level delta, until the first that cannot be certified.

    mean: ``[L]`` as in `control_risk`. Raises `RuacError` where the safest threshold cannot be certified.
    """
    check_alpha(alpha)
    if not 0 < delta < 1:
        raise RuacError(f"delta: {delta}, expected a number between 0 and 1")
    passed = bound_p_values(mean, count, alpha) <= delta
    run = np.cumprod(passed[::-1])[::-1].astype(bool)  # from the safe end, without a gap
    if not run.any():
        needed = math.ceil(math.log(delta) / math.log1p(-alpha))
        raise RuacError(f"{count} images cannot certify alpha={alpha:g} at delta={delta:g}; needs at least {needed}")
    return int(run.argmax())


def bound_p_values(mean: np.ndarray, count: int, alpha: float) -> np.ndarray:
    """Hoeffding-Bentkus p-values of "the risk is above alpha", each from a mean of `count` losses in [0, 1] (ibid.)."""
    mean = np.asarray(mean, dtype=float)
    below = np.minimum(mean, alpha)
    divergence = xlogy(below, below / alpha) + xlogy(1 - below, (1 - below) / (1 - alpha))  # of coins, in nats
    bentkus = math.e * bdtr(np.ceil(np.round(count * mean, 9)), count, alpha)  # the binomial distribution
    return np.where(mean >= alpha, 1.0, np.minimum(np.exp(-count * divergence), np.minimum(bentkus, 1.0)))


def _first(safe: np.ndarray, alpha: float, count: int) -> int:
    if not safe.any():
        needed = math.ceil(round(1 / alpha, 9)) - 1
        reason = f"needs at least {needed}" if count < needed else "no threshold of the grid reaches it"
        raise RuacError(f"{count} images cannot keep alpha={alpha:g}: {reason}")
    return int(safe.argmax())
