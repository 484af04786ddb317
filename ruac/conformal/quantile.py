"""The finite-sample quantile of split conformal prediction, plain and weighted."""

from __future__ import annotations

import math

import numpy as np

from ruac.base.errors import RuacError


def check_alpha(alpha: float) -> None:
    """Raise `RuacError` unless 0 < alpha < 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float, np.floating)) or not 0 < alpha < 1:
        raise RuacError(f"alpha: {alpha!r}, expected a number between 0 and 1, such as 0.1")


def images_needed(alpha: float) -> int:
    """The fewest samples with which a quantile at 1 - alpha is finite: the smallest n with ``1 / (n + 1) <= alpha``."""
    check_alpha(alpha)
    return math.ceil(_tidy(1 / alpha)) - 1


def check_enough(count: int, alpha: float, where: str) -> None:
    """Raise `RuacError` where `count` images are too few for `alpha`."""
    if count < (needed := images_needed(alpha)):
        raise RuacError(f"{where}: {count} images, but alpha={alpha:g} needs at least {needed}")


def conformal_quantile(scores: np.ndarray, alpha: float) -> np.ndarray:
    """The ``ceil((n + 1)(1 - alpha))``-th smallest of n scores along the first axis (evaluation, sec. 4).

    If the n scores and a new one are exchangeable, the new one is at most this with a probability of at least
    1 - alpha, and at most ``1 - alpha + 1 / (n + 1)`` where no two are equal (ConformalSAM, eq. 1). scores:
    ``[n, ...]``, nan where there is none, so that n may differ from place to place. Returns ``[...]``, inf where n is
    too small. Raises `RuacError` for alpha out of range.
    """
    check_alpha(alpha)
    scores = np.sort(np.asarray(scores, dtype=float), axis=0)  # nan comes last
    count = (~np.isnan(scores)).sum(0)
    rank = np.ceil(_tidy((count + 1) * (1 - alpha))).astype(int)
    place = np.clip(rank - 1, 0, max(len(scores) - 1, 0))
    if not len(scores):
        return np.full(count.shape, np.inf)
    return np.where(rank <= count, np.take_along_axis(scores, place[None], axis=0)[0], np.inf)


def weighted_quantile(scores: np.ndarray, weights: np.ndarray, own: float, alpha: float) -> float:
    """The same where samples weigh differently (Tibshirani et al., 2019, eq. 7 with a likelihood ratio as weight).

    scores, weights: ``[n]``. own: the weight of the new sample, whose score counts as infinite. The coverage of
    `conformal_quantile` then holds under a shift of inputs alone, as far as weights are its true likelihood ratio.
    """
    check_alpha(alpha)
    order = np.argsort(scores)
    share = np.cumsum(weights[order]) / (weights.sum() + own)
    place = int(np.searchsorted(share, _tidy(1 - alpha), side="left"))
    return float(scores[order][place]) if place < len(order) else math.inf


def _tidy(value):
    """Take away what binary fractions add: 20 * (1 - 0.1) is meant to be 18."""
    return np.round(value, 9)
