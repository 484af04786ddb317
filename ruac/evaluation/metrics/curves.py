"""Reliability metrics as functions of counts.

Ranking metrics take ``correct`` and ``wrong``: the numbers of correct and wrong pixels per bin, bins in ascending
order of uncertainty. A "positive" is a wrong pixel. Calibration metrics take per-bin ``count``, ``correct`` and
``confidence_sum``, bins in ascending order of confidence. A metric without a value (no pixel, or one class only where
two are needed) is nan.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import digamma

NAN = float("nan")


# Calibration


def ece(count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray) -> float:
    """Expected calibration error: ``sum_b |correct_b - confidence_sum_b| / n`` (Guo et al., ICML 2017, eq. 3)."""
    total = count.sum()
    return float(np.abs(correct - confidence_sum).sum() / total) if total else NAN


def mce(count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray) -> float:
    """Maximum calibration error: the largest gap of any bin that holds a pixel (Guo et al., eq. 5)."""
    held = count > 0
    return float((np.abs(correct - confidence_sum)[held] / count[held]).max()) if held.any() else NAN


def adaptive_ece(count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray, bins: int = 15) -> float:
    """ECE over `bins` bins of equal mass, cut from fine bins; a fine bin across a cut is shared in proportion."""
    total = count.sum()
    if not total:
        return NAN
    gap = _running(correct - confidence_sum)
    cuts = np.interp(np.linspace(0, total, bins + 1), _running(count), gap)
    return float(np.abs(np.diff(cuts)).sum() / total)


def ks(count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray) -> float:
    """Kolmogorov-Smirnov calibration error: largest gap of the running sums (Gupta et al., ICLR 2021)."""
    total = count.sum()
    return float(np.abs(_running(correct - confidence_sum)).max() / total) if total else NAN


def reliability_curve(
    count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and share of pixels per bin, for a reliability diagram; empty bins are nan, nan, 0."""
    held = np.where(count > 0, count, np.nan)
    return confidence_sum / held, correct / held, count / max(count.sum(), 1)


# Ranking: is a wrong pixel more uncertain than a correct one?


def accuracy(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Share of correct pixels."""
    total = correct.sum() + wrong.sum()
    return float(correct.sum() / total) if total else NAN


def auroc(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong pixel is more uncertain than a correct one, half for a tie."""
    pairs = float(correct.sum()) * float(wrong.sum())
    if not pairs:
        return NAN
    below = _running(correct)[:-1] + correct / 2
    return float((wrong * below).sum() / pairs)


def aupr(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Average precision, ``sum (R_i - R_{i-1}) P_i`` over falling thresholds (no interpolation, as scikit-learn)."""
    if not correct.sum() or not wrong.sum():
        return NAN
    correct, wrong = _occupied(correct, wrong)
    positives = np.cumsum(wrong[::-1])
    precision = positives / np.cumsum((correct + wrong)[::-1])
    return float((wrong[::-1] * precision).sum() / wrong.sum())


def fpr_at_tpr(correct: np.ndarray, wrong: np.ndarray, tpr: float = 0.95) -> float:
    """Smallest share of correct pixels flagged by a threshold that flags at least `tpr` of the wrong ones."""
    if not correct.sum() or not wrong.sum():
        return NAN
    first = np.searchsorted(np.cumsum(wrong[::-1]), tpr * wrong.sum())
    return float(correct[::-1][: first + 1].sum() / correct.sum())


def roc_curve(correct: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates from (0, 0) to (1, 1), one point per occupied bin; nan for a missing class."""
    correct, wrong = _occupied(correct, wrong)
    false, true = _running(correct[::-1]), _running(wrong[::-1])
    return _share(false, false[-1]), _share(true, true[-1])


# Selective prediction: keep the certain pixels


def aurc(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Area under the risk-coverage curve: error rate of the k most certain pixels, mean over k = 1..n.

    Geifman and El-Yaniv, ICLR 2019. Pixels of one bin are in random order: of m pixels, w wrong, after N pixels with
    E errors, the j-th has expected risk ``(E + j w/m) / (N + j)``, and the sum over j is a difference of digammas.
    """
    correct, wrong = _occupied(correct, wrong)
    size = correct + wrong
    total = size.sum()
    if not total:
        return NAN
    before, errors = _running(size)[:-1], _running(wrong)[:-1]
    rate = wrong / size
    harmonic = digamma(before + size + 1) - digamma(before + 1)
    return float((wrong + (errors - rate * before) * harmonic).sum() / total)


def oracle_aurc(correct: np.ndarray, wrong: np.ndarray) -> float:
    """AURC of the best order with this accuracy: every wrong pixel after every correct one."""
    return aurc(np.array([correct.sum(), 0]), np.array([0, wrong.sum()]))


def e_aurc(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Excess AURC: AURC minus the oracle's."""
    return aurc(correct, wrong) - oracle_aurc(correct, wrong)


def ause(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Area between the sparsification curves of model and oracle (Ilg et al., ECCV 2018).

    The error is "pixel wrong" and both curves are normalised to 1 before any pixel is removed: E-AURC / error rate.
    """
    error = 1 - accuracy(correct, wrong)
    return e_aurc(correct, wrong) / error if error else NAN


def prr(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Prediction rejection ratio in percent (Malinin et al.): 100 for the oracle, 0 for a random order.

    The rejection curve is the share of all pixels that is wrong and not yet rejected, the most uncertain rejected
    first; PRR = (area between random and model) / (area between random and oracle).
    """
    errors, total = float(wrong.sum()), float(correct.sum() + wrong.sum())
    if not errors or errors == total:
        return NAN
    size = correct + wrong
    rejected = _running(size[::-1]) / total
    left = (errors - _running(wrong[::-1])) / total
    rate = errors / total
    area = float((np.diff(rejected) * (left[1:] + left[:-1]) / 2).sum())
    return 100 * (rate / 2 - area) / (rate / 2 - rate**2 / 2)


def risk_coverage_curve(correct: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage in (0, 1] and the error rate of the pixels kept, one point per occupied bin."""
    correct, wrong = _occupied(correct, wrong)
    kept = np.cumsum(correct + wrong)
    return _share(kept, kept[-1] if len(kept) else 0), np.cumsum(wrong) / kept


# Certain or not, correct or not


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
    accurate, inaccurate = _running(correct)[nearest], _running(wrong)[nearest]
    return Quadrants(accurate, correct.sum() - accurate, inaccurate, wrong.sum() - inaccurate)


def median_edge(correct: np.ndarray, wrong: np.ndarray, edges: np.ndarray) -> float:
    """Upper edge of the bin that holds the median uncertainty: at least half of the pixels lie at or below it."""
    kept = np.cumsum(correct + wrong)
    return float(edges[np.searchsorted(kept, kept[-1] / 2) + 1]) if kept[-1] else NAN


def p_acc_cert(counts: Quadrants) -> np.ndarray:
    """p(accurate | certain) = n_ac / (n_ac + n_ic) (Mukhoti and Gal, 2018)."""
    return _share(counts.accurate_certain, counts.accurate_certain + counts.inaccurate_certain)


def p_unc_inacc(counts: Quadrants) -> np.ndarray:
    """p(uncertain | inaccurate) = n_iu / (n_ic + n_iu)."""
    return _share(counts.inaccurate_uncertain, counts.inaccurate_certain + counts.inaccurate_uncertain)


def pavpu(counts: Quadrants) -> np.ndarray:
    """Pixel PAvPU = (n_ac + n_iu) / n."""
    return _share(counts.accurate_certain + counts.inaccurate_uncertain, sum(counts))


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


def ood_auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that an image of another domain has a lower mean confidence than one of the source, half for ties.

    inside, outside: images per bin of mean confidence, ascending, of source and other domain (de Jorge et al., CVPR
    2023, section 3.3). Images that share a bin count as ties.
    """
    return auroc(inside[::-1], outside[::-1])


def _running(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values, dtype=np.float64)])


def _occupied(correct: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = (correct + wrong) > 0
    return correct[held].astype(np.float64), wrong[held].astype(np.float64)


def _share(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(whole) > 0, np.divide(part, whole), np.nan)
