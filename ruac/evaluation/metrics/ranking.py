"""Ranking metrics as functions of counts: are wrong pixels the uncertain ones?

They take ``correct`` and ``wrong``: the numbers of correct and wrong pixels per bin, bins in ascending order of
uncertainty. A "positive" is a wrong pixel. A metric without a value (no pixel, or one class only where two are needed)
is nan.
"""

from __future__ import annotations

import numpy as np
from scipy.special import digamma

from ruac.evaluation.metrics.bins import NAN, running, share


def accuracy(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Share of correct pixels."""
    total = correct.sum() + wrong.sum()
    return float(correct.sum() / total) if total else NAN


def auroc(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Probability that a wrong pixel is more uncertain than a correct one, half for a tie."""
    pairs = float(correct.sum()) * float(wrong.sum())
    if not pairs:
        return NAN
    below = running(correct)[:-1] + correct / 2
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
    before, errors = running(size)[:-1], running(wrong)[:-1]
    rate = wrong / size
    harmonic = digamma(before + size + 1) - digamma(before + 1)
    return float((wrong + (errors - rate * before) * harmonic).sum() / total)


def oracle_aurc(correct: np.ndarray, wrong: np.ndarray) -> float:
    """AURC of the best order with this accuracy: every wrong pixel after every correct one."""
    return aurc(np.array([correct.sum(), 0]), np.array([0, wrong.sum()]))


def e_aurc(correct: np.ndarray, wrong: np.ndarray, area: float | None = None) -> float:
    """Excess AURC: AURC minus the oracle's. area: the AURC, where it is known."""
    return (aurc(correct, wrong) if area is None else area) - oracle_aurc(correct, wrong)


def ause(correct: np.ndarray, wrong: np.ndarray, area: float | None = None) -> float:
    """Area between the sparsification curves of model and oracle (Ilg et al., ECCV 2018).

    The error is "pixel wrong" and both curves are normalised to 1 before any pixel is removed: E-AURC / error rate.
    area: the AURC, where it is known.
    """
    error = 1 - accuracy(correct, wrong)
    return e_aurc(correct, wrong, area) / error if error else NAN


def prr(correct: np.ndarray, wrong: np.ndarray) -> float:
    """Prediction rejection ratio in percent (Malinin et al.): 100 for the oracle, 0 for a random order.

    The rejection curve is the share of all pixels that is wrong and not yet rejected, the most uncertain rejected
    first; PRR = (area between random and model) / (area between random and oracle).
    """
    errors, total = float(wrong.sum()), float(correct.sum() + wrong.sum())
    if not errors or errors == total:
        return NAN
    size = correct + wrong
    rejected = running(size[::-1]) / total
    left = (errors - running(wrong[::-1])) / total
    rate = errors / total
    area = float((np.diff(rejected) * (left[1:] + left[:-1]) / 2).sum())
    return 100 * (rate / 2 - area) / (rate / 2 - rate**2 / 2)


def risk_coverage_curve(correct: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage in (0, 1] and the error rate of the pixels kept, one point per occupied bin."""
    correct, wrong = _occupied(correct, wrong)
    kept = np.cumsum(correct + wrong)
    return share(kept, kept[-1] if len(kept) else 0), np.cumsum(wrong) / kept


def ood_auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """Probability that an image of another domain has a lower mean confidence than one of the source, half for ties.

    inside, outside: images per bin of mean confidence, ascending, of source and other domain (de Jorge et al., CVPR
    2023, section 3.3). Images that share a bin count as ties.
    """
    return auroc(inside[::-1], outside[::-1])


def _occupied(correct: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    held = (correct + wrong) > 0
    return correct[held].astype(np.float64), wrong[held].astype(np.float64)
