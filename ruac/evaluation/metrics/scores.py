"""Metrics of a model's word about a whole object: the quality of predicted IoU, and the authors' object-level ECE."""

from __future__ import annotations

import numpy as np

from ruac.evaluation.metrics import bins, calibration
from ruac.evaluation.metrics.pixels import ONE
from ruac.evaluation.metrics.reliability import ReliabilitySums

GOOD_IOU = 0.75


def score_sums(predicted: np.ndarray, true: np.ndarray) -> ReliabilitySums:
    """Predicted and true IoU of objects, ``[N]``, as sums that merge like those of pixels.

    An object is counted as a pixel: its uncertainty is 1 - predicted IoU, its error 1 - true IoU, and it is wrong if
    its true IoU is below 0.75. Predictions outside [0, 1] are clipped. Raises `ValueError` for other shapes, NaN or a
    true IoU outside [0, 1].
    """
    predicted, true = (np.asarray(values, dtype=np.float64) for values in (predicted, true))
    if predicted.ndim != 1 or predicted.shape != true.shape:
        raise ValueError(f"predicted {list(predicted.shape)} and true {list(true.shape)}: expected [N] both")
    sums = ReliabilitySums()
    background = np.zeros(len(true), dtype=bool)
    doubt = 1 - predicted.clip(0, 1)
    sums.update(probability=1 - true, uncertainty=doubt, target=background, prediction=true < GOOD_IOU)
    return sums


def score_quality(sums: ReliabilitySums) -> dict[str, float]:
    """How well predicted IoU tells the true one, from `score_sums`; nan where there is no value.

    ``iou_pcc`` and ``iou_spearman``: correlation of the two. ``iou_auroc``: probability that an object of IoU < 0.75
    has a lower prediction than one above. ``iou_gap``: mean of predicted - true, above 0 for an overconfident model.
    """
    metrics = sums.compute()
    u, _, e, *_ = (float(v) for v in sums.moments)
    gap = (e - u) / (ONE * sums.count) if sums.count else bins.NAN
    return {
        "iou_pcc": metrics["pcc"],
        "iou_spearman": metrics["spearman"],
        "iou_auroc": metrics["auroc"],
        "iou_gap": gap,
    }


def coverage_at(score: np.ndarray, iou: np.ndarray, risk: float) -> float:
    """Largest share of masks that can be accepted, best score first, with a mean of 1 - IoU of at most `risk`.

    Masks of the same score are accepted together.
    """
    order = np.argsort(-score, kind="stable")
    ranked, mean = score[order], np.cumsum(1 - iou[order]) / np.arange(1, len(iou) + 1)
    last = np.append(ranked[1:] != ranked[:-1], True)
    kept = np.flatnonzero(last & (mean <= risk + 1e-12))
    return (kept[-1] + 1) / len(iou) if len(kept) else 0.0


def minmax_object_ece(
    count: np.ndarray, accuracy: np.ndarray, confidence: np.ndarray, *, low: float, high: float, bins: int = 15
) -> float:
    """ECE of objects whose confidence is first stretched to [0, 1] by the extremes of the data set.

    This is what the RUAC authors' code calls ECE. The stretching depends on the other objects and differs between
    models, so that values of two models cannot be compared; use ``ece`` for that.

    count, accuracy, confidence: ``[B]``, groups of objects of about equal confidence (or one object each, exactly):
    their number and the sums of their J and confidence. low, high: the extremes. nan without objects.
    """
    held = count > 0
    count, accuracy, confidence = count[held], accuracy[held], confidence[held]
    stretched = (confidence - low * count) / (high - low) if high > low else np.zeros(len(count))
    index = np.clip(np.ceil(stretched / count * bins) - 1, 0, bins - 1).astype(np.int64)
    return calibration.ece(*(np.bincount(index, weights=v, minlength=bins) for v in (count, accuracy, stretched)))
