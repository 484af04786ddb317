"""What a threshold on uncertainty separates: certain and uncertain pixels, right and wrong ones.

`quadrants` takes ``correct`` and ``wrong``: the numbers of correct and wrong pixels per bin, bins in ascending order of
uncertainty. A share of nothing is nan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ruac.evaluation.metrics.bins import NAN, running, share


class Quadrants(NamedTuple):
    """Pixel counts: accurate/inaccurate x certain/uncertain, where uncertain means u > threshold."""

    accurate_certain: np.ndarray
    accurate_uncertain: np.ndarray
    inaccurate_certain: np.ndarray
    inaccurate_uncertain: np.ndarray


def quadrants(correct: np.ndarray, wrong: np.ndarray, edges: np.ndarray, threshold: float | np.ndarray) -> Quadrants:
    """Counts at one or several thresholds, each taken at the nearest of the bin edges ``[bins + 1]``."""
    threshold = np.asarray(threshold, dtype=np.float64)
    right = np.clip(np.searchsorted(edges, threshold), 1, len(edges) - 1)
    nearest = right - (threshold - edges[right - 1] < edges[right] - threshold)
    accurate, inaccurate = running(correct)[nearest], running(wrong)[nearest]
    return Quadrants(accurate, correct.sum() - accurate, inaccurate, wrong.sum() - inaccurate)


def median_edge(correct: np.ndarray, wrong: np.ndarray, edges: np.ndarray) -> float:
    """Upper edge of the bin that holds the median uncertainty: at least half of the pixels lie at or below it."""
    kept = np.cumsum(correct + wrong)
    return float(edges[np.searchsorted(kept, kept[-1] / 2) + 1]) if kept[-1] else NAN


def p_acc_cert(counts: Quadrants) -> np.ndarray:
    """p(accurate | certain) = n_ac / (n_ac + n_ic) (Mukhoti and Gal, 2018)."""
    return share(counts.accurate_certain, counts.accurate_certain + counts.inaccurate_certain)


def p_unc_inacc(counts: Quadrants) -> np.ndarray:
    """p(uncertain | inaccurate) = n_iu / (n_ic + n_iu)."""
    return share(counts.inaccurate_uncertain, counts.inaccurate_certain + counts.inaccurate_uncertain)


def pavpu(counts: Quadrants) -> np.ndarray:
    """Pixel PAvPU = (n_ac + n_iu) / n."""
    return share(counts.accurate_certain + counts.inaccurate_uncertain, sum(counts))


def rss(
    *,
    miou: float,
    ece: float,
    p_acc_cert: float,
    p_unc_inacc: float,
    weights: tuple[float, float, float, float] = (1, 1, 1, 1),
) -> float:
    """Reliability score: harmonic mean of mIoU, 1 - ECE, p(acc|cert), p(unc|inacc), weighted in this order.

    0 if a weighted term is 0, nan if one is nan. Raises `ValueError` for a negative weight or none above 0.
    """
    terms, shares = np.array([miou, 1 - ece, p_acc_cert, p_unc_inacc]), np.asarray(weights, dtype=np.float64)
    if shares.shape != (4,) or not (shares >= 0).all() or not shares.any():
        raise ValueError(f"weights: expected four values of at least 0, not all 0, got {tuple(weights)}")
    terms, shares = terms[shares > 0], shares[shares > 0]
    if np.isnan(terms).any():
        return NAN
    return float(shares.sum() / (shares / terms).sum()) if (terms > 0).all() else 0.0
