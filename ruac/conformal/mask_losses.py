"""How much an inner and an outer mask of an image would be wrong by, at every threshold: from histograms alone."""

from __future__ import annotations

import numpy as np

from ruac.base.errors import RuacError

STEPS = 257  # thresholds of each grid


def _grid(low: float, high: float) -> np.ndarray:
    """Probabilities evenly spaced as logits, each a float32 that differs from the next."""
    return np.unique((1 / (1 + np.exp(-np.linspace(low, high, STEPS)))).astype(np.float32))


OUTER = np.concatenate([_grid(-16, 0)[::-1], np.zeros(1, np.float32)])
"""Thresholds of outer masks, bold to safe: from 1/2, the mask itself, to 0, the whole picture."""

INNER = np.concatenate([_grid(0, 14), np.full(1, 2, np.float32)])
"""Thresholds of inner masks, bold to safe: from 1/2, the mask itself, to 2, above any probability: nothing."""


def object_errors(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Missed share at `OUTER` and impurity at `INNER` of each of N objects, float64 ``[N, L]`` each, in [0, 1].

    Missed: the share of the object's pixels outside ``{p >= t}``. Impurity: the share of ``{p >= t}`` outside the
    object, 0 where it is empty.

    probability: float32 ``[N, H, W]`` in [0, 1]. truth: ``bool [N, H, W]``, none empty. Raises `RuacError` for
    probabilities that are nan or out of range, or an object without a pixel.
    """
    check_probability(probability)
    if not truth.any(axis=(1, 2)).all():
        raise RuacError(f"object {int((~truth.any(axis=(1, 2))).argmax())}: the true mask is empty")
    missed, impure = [], []
    for p, inside in zip(probability, truth, strict=True):
        kept = at_least(p[inside], OUTER)
        missed.append(1 - kept / inside.sum())
        right, wrong = at_least(p[inside], INNER), at_least(p[~inside], INNER)
        impure.append(wrong / np.maximum(right + wrong, 1))
    return np.array(missed), np.array(impure)


def object_losses(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`object_errors`, the impurity made to never grow towards the safe end, as risk control asks of a loss."""
    missed, impurity = object_errors(probability, truth)
    return missed, never_growing(impurity)


def never_growing(losses: np.ndarray) -> np.ndarray:
    """Of each row ``[N, L]`` the largest loss from a threshold on: what holds of it holds of the loss itself."""
    return np.maximum.accumulate(losses[:, ::-1], axis=1)[:, ::-1]


def object_sizes(probability: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Areas of outer masks at `OUTER` and inner masks at `INNER`, in areas of each of N objects; float64 ``[N, L]``."""
    area = truth.sum(axis=(1, 2))[:, None]
    outer, inner = (np.array([at_least(p.ravel(), grid) for p in probability]) / area for grid in (OUTER, INNER))
    return outer, inner


def at_least(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of `values` are at least each threshold, int64 ``[L]``; thresholds in either order."""
    rising = thresholds[0] < thresholds[-1]
    edges = thresholds if rising else thresholds[::-1]
    passed = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    counts = passed[:0:-1].cumsum()[::-1]  # values beyond edge k lie in bin k + 1 or later
    return counts if rising else counts[::-1]


def check_probability(probability: np.ndarray) -> None:
    """Raise `RuacError` for values that are no probabilities: nan, or outside [0, 1] as logits are."""
    if not np.isfinite(probability).all():
        raise RuacError("probability: expected finite values, found nan or infinity")
    if probability.size and (probability.min() < 0 or probability.max() > 1):
        found = f"{float(probability.min()):.3g} to {float(probability.max()):.3g}"
        raise RuacError(f"probability: values from {found}, expected [0, 1]; logits need a sigmoid first")
