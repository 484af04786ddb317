"""Non-conformity of pixels, ``1 - p(true class)`` (ConformalSAM, eq. 3), and the thresholds fitted to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ruac.base.errors import RuacError
from ruac.conformal.mask_losses import check_probability
from ruac.conformal.quantile import check_alpha, check_enough
from ruac.conformal.regions import RegionsConfig, find_regions

IGNORE = 255
"""Label of a pixel that is left out: unknown truth, or an empty prediction set."""


def check_labels(labels: np.ndarray, names: list[str], where: str = "labels") -> None:
    """Raise `RuacError` for a label that is neither a class, 0 to K - 1, nor `IGNORE`."""
    wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= len(names)))]
    if wrong.size:
        raise RuacError(f"{where}: found label {int(wrong[0])}, expected 0 to {len(names) - 1} or {IGNORE} (ignored)")


def pixel_scores(probability: np.ndarray, labels: np.ndarray, names: list[str], where: str = "labels") -> np.ndarray:
    """``1 - p(true class)`` of every pixel, nan where the label is `IGNORE`; float32 ``[H, W]``.

    probability: ``[K, H, W]`` in [0, 1], which need not add up to 1 over classes. labels: integers ``[H, W]``.
    names: of the K classes. Raises `RuacError` for nan or values outside [0, 1], and labels outside the classes.
    """
    check_probability(probability)
    check_labels(labels, names, where)
    known = labels != IGNORE
    own = np.take_along_axis(probability, np.where(known, labels, 0).astype(np.int64)[None], axis=0)[0]
    return np.where(known, 1 - own, np.nan).astype(np.float32)


def region_quantile(scores: np.ndarray, inside: np.ndarray, alpha: float) -> float:
    """Threshold q of one region, so that a new picture's pixels of it exceed q in an expected share of at most alpha.

    Pixels of a picture depend on each other; so the picture is the exchangeable unit. Its loss, the share of its
    pixels of the region above q, falls with q, and q is the smallest with
    ``n / (n + 1) mean loss + 1 / (n + 1) <= alpha`` (conformal risk control). Where a region is one pixel this is the
    order statistic of `conformal_quantile`.

    scores: ``[n, H, W]``, nan where unknown. inside: ``bool [H, W]``. Returns inf where too few pictures have a
    known pixel in the region.
    """
    own = scores[:, inside]  # [n, P]
    known = ~np.isnan(own)
    per_image = known.sum(1)
    count = int((per_image > 0).sum())
    if not count:
        return np.inf
    weight = np.broadcast_to(1 / np.maximum(per_image, 1)[:, None], own.shape)[known]
    values = own[known]
    order = np.argsort(values, kind="stable")
    place = int(np.searchsorted(np.cumsum(weight[order]), (count + 1) * (1 - alpha) - 1e-9))
    return float(values[order][place]) if place < len(values) and (count + 1) * (1 - alpha) <= count + 1e-9 else np.inf


@dataclass(frozen=True)
class PixelThresholds:
    """values: float32 ``[1, G, G]``, or ``[K, G, G]`` with a threshold of each class. alpha: what they keep.

    Class k is in the set of a pixel where ``1 - p_k <= values`` at its relative place in the picture. fallback: the
    share of places whose own region had too few pictures, and which have the threshold of the whole picture.
    """

    values: np.ndarray
    alpha: float
    regions: int
    fallback: float

    def at(self, size: tuple[int, int]) -> np.ndarray:
        """Thresholds at a picture's size (H, W), those of the nearest cell; ``[1 or K, H, W]``."""
        side = self.values.shape[1:]
        rows, columns = (np.arange(n) * cells // n for n, cells in zip(size, side, strict=True))
        return self.values[:, rows[:, None], columns]


def fit_pixel_thresholds(
    scores: np.ndarray,
    labels: np.ndarray,
    names: list[str],
    alpha: float,
    regions: RegionsConfig,
    *,
    each: bool = False,
) -> PixelThresholds:
    """Thresholds from the scores ``[n, G, G]`` and labels ``[n, G, G]`` of n labelled pictures.

    The guarantee is per region (`region_quantile`) and, with `each`, per class as well: pictures without a pixel of
    the class then do not count. regions: which pixels share a threshold; found from the same scores, so that it is
    exact for ``location`` and ``image``, and for the others as far as a region does not adapt to its scores.
    A region with too few pictures takes the threshold of the whole picture.

    Raises `RuacError` for alpha out of range, a class on none of the pictures, or fewer pictures than alpha needs.
    """
    check_alpha(alpha)
    check_labels(labels, names)
    check_enough(len(scores), alpha, "labelled subset")
    present = [(labels == k).any(axis=(1, 2)) for k in range(len(names))]
    if missing := [name for name, images in zip(names, present, strict=True) if not images.any()]:
        raise RuacError(f"labelled subset: class {missing[0]!r} is on none of its {len(scores)} pictures")
    ids = find_regions(scores, regions)
    parts = [np.where(labels == k, scores, np.nan) for k in range(len(names))] if each else [scores]
    values, lacking = [], 0
    for k, own in enumerate(parts):
        if each:
            check_enough(int(present[k].sum()), alpha, f"labelled subset: class {names[k]!r}")
        whole = region_quantile(own, np.ones(ids.shape, bool), alpha)
        table = np.array([region_quantile(own, ids == region, alpha) for region in range(ids.max() + 1)])
        lacking += int(np.isinf(table)[ids].sum())
        values.append(np.where(np.isinf(table), whole, table)[ids])
    stacked = np.stack(values).astype(np.float32)
    return PixelThresholds(stacked, alpha, int(ids.max() + 1), lacking / stacked.size)
