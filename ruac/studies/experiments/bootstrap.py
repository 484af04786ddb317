"""Percentile intervals from resampled photographs.

What is resampled is the unit that is independent: objects of one photograph, and pixels of one object, are not. The
first replicate is the sample itself, so that an array of replicates holds the estimate and its distribution, and the
replicates of two quantities drawn with the same weights can be subtracted.
"""

from __future__ import annotations

import numpy as np


def resampling_weights(units: int, replicates: int, seed: int) -> np.ndarray:
    """How often each unit is drawn, ``float64 [1 + replicates, units]``: the first row is all ones."""
    drawn = np.random.default_rng(seed).multinomial(units, np.full(units, 1 / units), size=replicates)
    return np.concatenate([np.ones((1, units)), drawn])


def weighted_mean(weights: np.ndarray, sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean over the members of the units drawn. weights: ``[R, U]``, sums: ``[U, ...]``, counts: ``[U]``.

    Returns ``[R, ...]``, nan for a replicate without members.
    """
    held = (weights @ counts).reshape(-1, *[1] * (sums.ndim - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.tensordot(weights, sums, axes=1) / held


def interval(replicates: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper end over the first axis, without the first replicate; nan where no replicate has a value."""
    outside = 50 * (1 - level)
    drawn = replicates[1:]
    if not len(drawn):
        return np.full(replicates.shape[1:], np.nan), np.full(replicates.shape[1:], np.nan)
    undefined = np.isnan(drawn).all(axis=0)
    low, high = np.nanpercentile(np.where(undefined, 0.0, drawn), [outside, 100 - outside], axis=0)
    return np.where(undefined, np.nan, low), np.where(undefined, np.nan, high)
