"""Calibration metrics as functions of counts: does confidence say how often a pixel is right?

They take per-bin ``count``, ``correct`` and ``confidence_sum``, bins in ascending order of confidence. Without a pixel
a metric is nan.
"""

from __future__ import annotations

import numpy as np

from ruac.evaluation.metrics.bins import NAN, running


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
    gap = running(correct - confidence_sum)
    cuts = np.interp(np.linspace(0, total, bins + 1), running(count), gap)
    return float(np.abs(np.diff(cuts)).sum() / total)


def ks(count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray) -> float:
    """Kolmogorov-Smirnov calibration error: largest gap of the running sums (Gupta et al., ICLR 2021)."""
    total = count.sum()
    return float(np.abs(running(correct - confidence_sum)).max() / total) if total else NAN


def reliability_curve(
    count: np.ndarray, correct: np.ndarray, confidence_sum: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and share of pixels per bin, for a reliability diagram; empty bins are nan, nan, 0."""
    held = np.where(count > 0, count, np.nan)
    return confidence_sum / held, correct / held, count / max(count.sum(), 1)
