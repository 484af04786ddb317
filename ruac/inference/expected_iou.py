"""How good a mask will turn out to be, from its probability map alone."""

from __future__ import annotations

import numpy as np


def expected_iou(masks: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """IoU of masks with a truth that is drawn from `probability`, to first order: expected intersection over union.

    masks: ``bool [..., H, W]``. probability: of the object, the same shape. Returns float32 ``[...]``; 1 for an empty
    mask where nothing is expected. The ratio of expectations differs from the expected ratio by about 1 / area for
    pixels that err on their own, and does not know that real errors come in patches.
    """
    inside = (probability * masks).sum(axis=(-2, -1), dtype=np.float64)
    missed = probability.sum(axis=(-2, -1), dtype=np.float64) - inside
    union = masks.sum(axis=(-2, -1), dtype=np.float64) + missed
    return np.where(union > 0, inside / np.where(union > 0, union, 1), 1.0).astype(np.float32)
