"""Pixels of one object's band by confidence: small enough to keep per object, enough to resample pooled metrics.

Metrics such as AUROC are functions of a domain's pooled pixels, so an interval for them needs every object's own
pixels. Counts in `BINS` bins of confidence give them to about 1e-3, which is far below what resampling objects moves.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.special import digamma, expit
from torch import Tensor

BINS = 64
STEP = 1 / 8  # of |logit|; the last bin holds all from 7.875, a confidence of 0.9996
CALIBRATION_BINS = 15
_MIDDLES = expit((np.arange(BINS) + 0.5) * STEP)  # confidence of each bin


class Band(NamedTuple):
    """The pixels of N objects' bands. place: in the flattened maps, ascending, ``int64 [P]``. owner: object of each."""

    place: Tensor
    owner: Tensor
    count: int  # N

    @classmethod
    def of(cls, band: np.ndarray, device: torch.device | str = "cpu") -> Band:
        """band: ``bool [N, H, W]``, as from `object_band`. device: of the maps to come."""
        place = torch.from_numpy(np.flatnonzero(band)).to(device)
        return cls(place, place // max(band[:1].size, 1), len(band))

    def mean(self, values: Tensor) -> np.ndarray:
        """Over each object's band: ``float64 [N]``, nan without a pixel. values: ``[N, H, W]``."""
        owner, values = self.owner.cpu().numpy(), self.of_maps(values).float().cpu().numpy()
        with np.errstate(invalid="ignore"):
            return np.bincount(owner, values, self.count) / np.bincount(owner, minlength=self.count)

    def of_maps(self, values: Tensor) -> Tensor:
        """``[P]`` from ``[N, H, W]``."""
        return values.reshape(-1).index_select(0, self.place)


def band_counts(probability: Tensor, wrong: Tensor, band: Band) -> np.ndarray:
    """Correct and wrong pixels per bin, least confident first: ``int32 [N, 2, BINS]``.

    probability: ``[N, H, W]`` in [0, 1] of the object; the confidence is max(p, 1 - p), its logit |logit p|. wrong:
    ``bool [N, H, W]``.
    """
    logit = torch.logit(band.of_maps(probability).float(), eps=1e-6).abs()
    bins = (logit / STEP).long().clamp_(max=BINS - 1)
    flat = (band.owner * 2 + band.of_maps(wrong)) * BINS + bins
    counts = torch.bincount(flat, minlength=2 * BINS * band.count)
    return counts.reshape(band.count, 2, BINS).to(torch.int32).cpu().numpy()


def pooled_metrics(counts: np.ndarray) -> dict[str, np.ndarray]:
    """AUROC, ECE, AURC and PRR (percent) of each of ``counts [..., 2, BINS]``; nan where a metric has no value.

    As in `ranking` and `calibration`, over these bins, for many sets of counts at once; ECE takes a bin's middle for
    its pixels' confidence.
    """
    counts = counts[..., ::-1].astype(np.float64)  # the most confident first
    correct, wrong = counts[..., 0, :], counts[..., 1, :]
    size = correct + wrong
    right, errors, total = correct.sum(-1), wrong.sum(-1), size.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        auroc = (wrong * (np.cumsum(correct, -1) - correct / 2)).sum(-1) / (right * errors)
        rate = np.where(size > 0, wrong / size, 0.0)
        before, errors_before = np.cumsum(size, -1) - size, np.cumsum(wrong, -1) - wrong
        harmonic = digamma(before + size + 1) - digamma(before + 1)
        aurc = (wrong + (errors_before - rate * before) * harmonic).sum(-1) / total
        share = errors / total
        # Rejecting from the least confident on; in this order the errors not yet rejected are those before.
        area = (size * (errors_before + wrong / 2)).sum(-1) / total**2
        prr = 100 * (share / 2 - area) / (share / 2 - share**2 / 2)
        ece = np.abs(_by_confidence(correct - size * _MIDDLES[::-1])).sum(-1) / total
    return {"auroc": auroc, "ece": ece, "aurc": aurc, "prr": prr}


def _by_confidence(gap: np.ndarray) -> np.ndarray:
    """Sums over the usual equal bins of confidence in [0, 1]."""
    bins = np.minimum((_MIDDLES[::-1] * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    sums = np.zeros((*gap.shape[:-1], CALIBRATION_BINS))
    for index in np.unique(bins):
        sums[..., index] = gap[..., bins == index].sum(-1)
    return sums
