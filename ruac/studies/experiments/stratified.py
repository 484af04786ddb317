"""Does a map follow a target, and does it still where the distance to the predicted contour is the same?

Any map that is high at the predicted contour finds whatever lies near contours. The controlled measures only compare
pixels of one stratum, that is on one side of the predicted contour and at one distance from it, so that a map that is
a function of that distance gets 0 (correlation) or 1/2 (AUROC). All measures are functions of sums per photograph and
stratum, which makes resampling photographs cheap.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.stats import rankdata

from ruac.studies.experiments.bootstrap import weighted_mean

EXACT = 5
"""Distances up to this many pixels have a stratum each; beyond they share one per pixel, then per 4 pixels."""

EDGES = np.concatenate([np.sqrt(np.arange(1, EXACT**2 + 1)), np.arange(EXACT + 1, 17), np.arange(20, 33, 4)])
STRATA = 2 * (len(EDGES) + 1)

BINS = 256
"""Bins of equal mass that a score with more values is cut into for AUROC; pixels of one bin count as ties."""

_CHUNK = 64  # replicates held at a time

Key = tuple[str, str, bool]
"""(measure, aggregation, controlled): pearson, spearman or auroc; pooled or photograph."""


def contour_distance(mask: np.ndarray) -> np.ndarray:
    """Distance in pixels of every pixel of ``bool [H, W]`` to the nearest one on the other side, at least 1.

    The frame of the picture is no contour; without any contour the distance is infinite.
    """
    if mask.all() or not mask.any():
        return np.full(mask.shape, np.inf)
    return np.where(mask, distance_transform_edt(mask), distance_transform_edt(~mask))


def strata(mask: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Stratum of every pixel, ``int16`` in [0, STRATA): its side of the contour of `mask` and its distance from it."""
    # Squared distances are whole numbers; the margin keeps their roots below the edges that stand for them.
    step = np.searchsorted(EDGES + 1e-6, distance)
    return (2 * step + mask).astype(np.int16)


def measure(
    score: np.ndarray,
    target: np.ndarray,
    *,
    photograph: np.ndarray,
    stratum: np.ndarray,
    weights: np.ndarray,
) -> dict[Key, np.ndarray]:
    """Pearson and Spearman correlation of score and target, and AUROC of score for ``target > 0``, ``[R]`` each.

    score, target: ``[P]``, one value a pixel. photograph, stratum: ``int [P]``. weights: ``[R, photographs]`` of
    `resampling_weights`.

    "pooled" takes the pixels of all photographs together, "photograph" is the mean over the photographs' own values.
    Controlled correlations are partial: of the residuals from the stratum's means (for Spearman: of the ranks).
    Controlled AUROC is the share of concordant pairs among pairs within a stratum. A score without variation has
    correlation 0; a target without variation gives nan. Replicates keep the ranks of the whole sample.
    """
    shape = (weights.shape[1], STRATA)
    cell = photograph.astype(np.int64) * STRATA + stratum
    own = np.empty((2, len(score)))
    for index in np.unique(photograph):
        inside = photograph == index
        own[:, inside] = _ranks(score[inside]), _ranks(target[inside])
    pearson = _moments(_standardised(score), _standardised(target), cell, shape)
    pooled = {"pearson": pearson, "spearman": _moments(_ranks(score), _ranks(target), cell, shape)}
    single = {"pearson": pearson, "spearman": _moments(*own, cell, shape)}
    counts = _counts(score, target > 0, cell, shape)  # [photographs, strata, BINS, 2]
    result = {}
    for controlled in (False, True):
        for name in pooled:
            together = np.tensordot(weights, pooled[name], axes=1)
            result[name, "pooled", controlled] = _correlation(together, controlled)
            alone = _correlation(single[name], controlled)
            result[name, "photograph", controlled] = _mean_of_defined(weights, alone)
        kept = counts if controlled else counts.sum(axis=1, keepdims=True)
        chunks = np.split(weights, range(_CHUNK, len(weights), _CHUNK))
        result["auroc", "pooled", controlled] = np.concatenate([_auroc(np.tensordot(w, kept, axes=1)) for w in chunks])
        result["auroc", "photograph", controlled] = _mean_of_defined(weights, _auroc(kept))
    return result


def _mean_of_defined(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    defined = np.isfinite(values)
    return weighted_mean(weights, np.where(defined, values, 0.0), defined.astype(float))


def _standardised(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(dtype=np.float64)
    deviation = centred.std()
    flat = deviation <= 1e-12 * np.abs(values).max()  # then what is left is rounding
    return np.zeros_like(centred) if flat else centred / deviation


def _ranks(values: np.ndarray) -> np.ndarray:
    return _standardised(rankdata(values))


def _moments(x: np.ndarray, y: np.ndarray, cell: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Sums of 1, x, y, x^2, y^2, xy per cell: ``[photographs, strata, 6]``."""
    columns = (np.ones_like(x), x, y, x * x, y * y, x * y)
    return np.stack([np.bincount(cell, c, minlength=shape[0] * shape[1]).reshape(shape) for c in columns], axis=-1)


def _correlation(moments: np.ndarray, controlled: bool) -> np.ndarray:
    """``[..., strata, 6]`` to ``[...]``."""
    total = moments.sum(axis=-2, keepdims=True)
    n, x, y, xx, yy, xy = np.moveaxis(moments if controlled else total, -1, 0)
    n = np.maximum(n, 1)
    var_x, var_y, cov = ((a - b / n).sum(axis=-1) for a, b in ((xx, x * x), (yy, y * y), (xy, x * y)))
    noise = 1e-10 * total[..., 0, 3:5]  # rounding of the sums above
    flat, undefined = var_x <= noise[..., 0], var_y <= noise[..., 1]
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip(cov / np.sqrt(var_x * var_y), -1, 1)
    return np.where(undefined, np.nan, np.where(flat, 0.0, r))


def _counts(score: np.ndarray, positive: np.ndarray, cell: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels per cell, bin of the score and class: ``float64 [photographs, strata, BINS, 2]``."""
    values = np.unique(score)
    edges = values[:-1] if len(values) <= BINS else np.unique(np.quantile(score, np.linspace(0, 1, BINS + 1)[1:-1]))
    place = (cell * BINS + np.searchsorted(edges, score)) * 2 + positive
    return np.bincount(place, minlength=shape[0] * shape[1] * BINS * 2).astype(float).reshape(*shape, BINS, 2)


def _auroc(counts: np.ndarray) -> np.ndarray:
    """``[..., strata, BINS, 2]`` to ``[...]``; nan where no pair can be formed."""
    negative, positive = np.moveaxis(counts, -1, 0)
    below = np.cumsum(negative, axis=-1) - negative / 2
    concordant = (positive * below).sum(axis=(-2, -1))
    pairs = (positive.sum(axis=-1) * negative.sum(axis=-1)).sum(axis=-1)
    return np.where(pairs > 0, concordant / np.maximum(pairs, 1), np.nan)
