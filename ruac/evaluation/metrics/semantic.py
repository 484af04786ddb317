"""mIoU and reliability of label maps with several classes, from counts that add up exactly."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ruac.evaluation.metrics import calibration, certainty
from ruac.evaluation.metrics.bins import ECE_BINS, NAN
from ruac.evaluation.metrics.pixels import ONE

WEIGHTS = (1.0, 1.0, 1.0, 1.0)


class SemanticSums:
    """Sums over the pixels of pictures with known classes; all int64, so that order and processes do not matter.

    ``confusion [K, K]``: pixels by true (row) and predicted class. ``count``, ``correct``, ``confidence`` ``[15]``: of
    the ECE bins of the top probability (confidence in units of 2^-24). ``at_median [2, 2]``: right or wrong x certain
    or uncertain at the median entropy of each picture (RSS, Landgraf et al., section 3).
    """

    def __init__(self, classes: int):
        self.confusion = np.zeros((classes, classes), np.int64)
        self.count, self.correct, self.confidence = (np.zeros(ECE_BINS, np.int64) for _ in range(3))
        self.at_median = np.zeros((2, 2), np.int64)

    def update(self, probability: Tensor, labels: Tensor, ignore: int = 255) -> None:
        """Add one picture. probability: float ``[K, H, W]``, adding up to 1. labels: integers ``[H, W]``.

        Raises `ValueError` for another shape, no probabilities, or a label that is neither a class nor `ignore`.
        """
        classes = len(self.confusion)
        if probability.shape != (classes, *labels.shape):
            raise ValueError(f"probability {list(probability.shape)}: expected {[classes, *labels.shape]}")
        known = labels != ignore
        p, truth = probability[:, known].double(), labels[known].long()  # [K, P]
        if not truth.numel():
            return
        if not bool((p >= 0).all() and ((p.sum(0) - 1).abs() < 1e-3).all()):
            raise ValueError("probability: expected values of at least 0 that add up to 1 over classes")
        if int(truth.min()) < 0 or int(truth.max()) >= classes:
            raise ValueError(f"labels: expected 0 to {classes - 1} or {ignore}")
        top, label = p.max(0)
        top = top.clamp(max=1.0)
        right = label == truth
        self.confusion += _histogram(truth * classes + label, classes**2).reshape(classes, classes)
        place = (top * ECE_BINS).ceil().long().clamp(1, ECE_BINS) - 1
        self.count += _histogram(place, ECE_BINS)
        self.correct += _histogram(place[right], ECE_BINS)
        fixed = torch.zeros(ECE_BINS, dtype=torch.int64, device=p.device)
        self.confidence += fixed.index_add_(0, place, (top * ONE).round().long()).cpu().numpy()
        entropy = torch.special.entr(p).sum(0) / math.log(classes)
        uncertain = entropy > entropy.median()
        self.at_median += _histogram((~right).long() * 2 + uncertain.long(), 4).reshape(2, 2)

    def all_reduce(self, device: torch.device | str = "cpu") -> None:
        """Replace the sums by those over all processes of the default group; `device` as its backend needs it."""
        for values in vars(self).values():
            shared = torch.from_numpy(values).to(device)
            torch.distributed.all_reduce(shared)
            values[...] = shared.cpu().numpy()

    def iou(self) -> np.ndarray:
        """IoU of every class, ``[K]``; nan for one that is neither true nor predicted anywhere."""
        inside = np.diag(self.confusion)
        union = self.confusion.sum(0) + self.confusion.sum(1) - inside
        return np.divide(inside, union, out=np.full(len(union), NAN), where=union > 0)

    def compute(self, weights: tuple[float, float, float, float] = WEIGHTS) -> dict[str, float]:
        """``miou`` (over classes that are true or predicted somewhere), ``accuracy``, ``ece`` (15 bins), ``p_acc_cert``
        and ``p_unc_inacc`` at each picture's median entropy, and ``rss`` with `weights`; nan without a pixel."""
        iou = self.iou()
        quadrants = certainty.Quadrants(*self.at_median.reshape(-1))
        values = {
            "miou": float(np.nanmean(iou)) if not np.isnan(iou).all() else NAN,
            "accuracy": float(self.correct.sum() / self.count.sum()) if self.count.sum() else NAN,
            "ece": calibration.ece(self.count, self.correct, self.confidence / ONE),
            "p_acc_cert": float(certainty.p_acc_cert(quadrants)),
            "p_unc_inacc": float(certainty.p_unc_inacc(quadrants)),
        }
        terms = {name: values[name] for name in ("miou", "ece", "p_acc_cert", "p_unc_inacc")}
        return values | {"rss": certainty.rss(**terms, weights=weights)}


def _histogram(values: Tensor, size: int) -> np.ndarray:
    return torch.bincount(values, minlength=size).cpu().numpy()
