"""How good a mask will turn out to be, from its probability map alone, under two ideas of how pixels err."""

from __future__ import annotations

import numpy as np

LEVELS = 16


def expected_iou(masks: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """IoU with a truth whose pixels are drawn one by one, to first order: expected intersection over expected union.

    masks: ``bool [..., H, W]``. probability: of the object, the same shape. Returns float32 ``[...]``; 1 for an empty
    mask where nothing is expected. The ratio of expectations differs from the expected ratio by about 1 / area.
    """
    inside = (probability * masks).sum(axis=(-2, -1), dtype=np.float64)
    missed = probability.sum(axis=(-2, -1), dtype=np.float64) - inside
    union = masks.sum(axis=(-2, -1), dtype=np.float64) + missed
    return np.where(union > 0, inside / np.where(union > 0, union, 1), 1.0).astype(np.float32)


def joint_iou(masks: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """IoU with a truth ``{p > t}``, on average over `LEVELS` values of t: pixels err together (`next_click`).

    Shapes as in `expected_iou`.
    """
    flat = zip(masks.reshape(-1, *masks.shape[-2:]), probability.reshape(-1, *masks.shape[-2:]), strict=True)
    return np.array([_joint(*pair) for pair in flat], dtype=np.float32).reshape(masks.shape[:-2])


def _joint(mask: np.ndarray, probability: np.ndarray) -> float:
    edges = np.concatenate([[-np.inf], levels(), [np.inf]])
    # How many pixels have p above each level, inside the mask and outside of it.
    inside, outside = (
        np.histogram(-probability[region], -edges[::-1])[0].cumsum()[:-1][::-1] for region in (mask, ~mask)
    )
    union = np.count_nonzero(mask) + outside
    return float(np.where(union > 0, inside / np.maximum(union, 1), 1.0).mean())


def levels() -> np.ndarray:
    """The values of t, evenly spread over (0, 1)."""
    return (np.arange(LEVELS) + 0.5) / LEVELS
