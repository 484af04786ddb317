"""Prediction sets of pixels, and the label that is kept of them (ConformalSAM, eq. 4)."""

from __future__ import annotations

import numpy as np

from ruac.base.errors import RuacError
from ruac.conformal.mask_losses import check_probability
from ruac.conformal.pixel_scores import IGNORE, PixelThresholds

FILTERS = ("class_conditional", "marginal", "half", "none")


def prediction_sets(probability: np.ndarray, thresholds: PixelThresholds) -> np.ndarray:
    """Classes of every pixel's set: ``bool [K, H, W]``, ``1 - p_k <= q``. Raises `RuacError` for no probabilities."""
    check_probability(probability)
    return 1 - np.asarray(probability, np.float32) <= thresholds.at(probability.shape[1:])


def kept_labels(
    probability: np.ndarray, thresholds: PixelThresholds | None, *, filter: str, background: bool
) -> np.ndarray:
    """The label of every pixel, uint8 ``[H, W]``, `IGNORE` where nothing is kept.

    filter: ``class_conditional``, the most probable class of the set, and where class 0 is a dominating background
    and a foreground class is in the set as well, the most probable of those (ConformalSAM, eq. 4; without background
    that line is off); ``marginal``, the most probable of all classes if it is in the set; ``half``, the most
    probable where it has more than one half, whatever the sets, as a control; ``none``, the most probable.
    An empty set is `IGNORE`. Where background is alone in the set the label is background: eq. 4, read literally,
    would leave no class to choose from.

    probability: ``[K, H, W]``, class 0 the background if `background`. Raises `RuacError` for an unknown filter.
    """
    if filter not in FILTERS:
        raise RuacError(f"filter: {filter!r}, expected {' or '.join(FILTERS)}")
    best = probability.argmax(0)
    if filter == "none":
        return best.astype(np.uint8)
    if filter == "half":
        return np.where(probability.max(0) > 0.5, best, IGNORE).astype(np.uint8)
    assert thresholds is not None
    inside = prediction_sets(probability, thresholds)
    if filter == "marginal":
        kept = np.take_along_axis(inside, best[None], axis=0)[0]
        return np.where(kept, best, IGNORE).astype(np.uint8)
    known = inside.any(0)
    if background and len(inside) > 1:
        inside[0] &= ~inside[1:].any(0)
    chosen = np.where(inside, probability, -1.0).argmax(0)
    return np.where(known, chosen, IGNORE).astype(np.uint8)
