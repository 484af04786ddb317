"""J and F per object, with the conventions of the DAVIS benchmark (Perazzi et al., CVPR 2016)."""

from __future__ import annotations

import math

import numpy as np

from ruac.evaluation.metrics.region import bounding_box, pad_box

TOLERANCE = 0.008  # of the image diagonal


def jaccard(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """J: intersection over union of each object; 1 where both masks are empty.

    prediction, truth: ``bool [N, H, W]``. Returns ``float64 [N]``. Raises `ValueError` for other shapes or dtypes.
    """
    _check(prediction, truth)
    scores = np.ones(len(truth))
    for n, (ours, theirs) in enumerate(zip(prediction, truth, strict=True)):
        if union := np.count_nonzero(ours | theirs):
            scores[n] = np.count_nonzero(ours & theirs) / union
    return scores


def boundary_f(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F: harmonic mean of boundary precision and recall of each object, at full resolution.

    A boundary pixel is matched if the other mask has a boundary pixel within ``ceil(0.008 * diagonal)`` pixels.
    Precision and recall are the matched shares of the predicted and true boundaries. Both boundaries empty: F = 1;
    one empty: F = 0. A mask that fills the image has no boundary (nor has it in DAVIS).

    prediction, truth: ``bool [N, H, W]``. Returns ``float64 [N]``. Raises `ValueError` for other shapes or dtypes.
    """
    _check(prediction, truth)
    radius = math.ceil(TOLERANCE * math.hypot(*truth.shape[1:]))
    return np.array([_boundary_f(*pair, radius) for pair in zip(prediction, truth, strict=True)], dtype=np.float64)


def boundary(mask: np.ndarray) -> np.ndarray:
    """One-pixel boundary of ``bool [H, W]``: pixels that differ from the next one right, below or diagonally.

    Beyond the last row and column the mask is continued, so the frame is never a boundary.
    """
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")  # [H+1, W+1]
    return (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])


def _boundary_f(prediction: np.ndarray, truth: np.ndarray, radius: int) -> float:
    boxes = [box for box in map(bounding_box, (prediction, truth)) if box is not None]
    if not boxes:
        return 1.0
    union = tuple(slice(min(b[i].start for b in boxes), max(b[i].stop for b in boxes)) for i in (0, 1))
    # One pixel more: the boundary lies one pixel outside the mask at the top and on the left.
    box = pad_box(union, 1, truth.shape)
    ours, theirs = boundary(prediction[box]), boundary(truth[box])
    ours_size, theirs_size = np.count_nonzero(ours), np.count_nonzero(theirs)
    if not ours_size or not theirs_size:
        return float(ours_size == theirs_size)
    precision = _count_near(ours, theirs, radius) / ours_size
    recall = _count_near(theirs, ours, radius) / theirs_size
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _count_near(pixels: np.ndarray, others: np.ndarray, radius: int) -> int:
    """How many True of `pixels` have a True of `others` within Euclidean distance `radius`; both ``bool [H, W]``.

    Row by row of the disk, the nearest first: a running count along each row of `others` tells whether its part of the
    row holds any. Most pixels are matched by the first rows and drop out, so cost follows the boundary, not the image.
    """
    height, width = others.shape
    running = np.zeros((height, width + 1), dtype=np.int32)
    np.cumsum(others, axis=1, out=running[:, 1:])
    rows, columns = np.nonzero(pixels)
    total = len(rows)
    for step in sorted(range(-radius, radius + 1), key=abs):
        reach = math.isqrt(radius * radius - step * step)
        line = rows + step
        inside = (line >= 0) & (line < height)
        line = line.clip(0, height - 1)
        right, left = np.minimum(columns + reach + 1, width), np.maximum(columns - reach, 0)
        missed = ~inside | (running[line, right] == running[line, left])
        rows, columns = rows[missed], columns[missed]
    return total - len(rows)


def _check(prediction: np.ndarray, truth: np.ndarray) -> None:
    for name, masks in (("prediction", prediction), ("truth", truth)):
        if masks.ndim != 3 or masks.dtype != np.bool_:
            raise ValueError(f"{name}: expected bool [N, H, W], got {masks.dtype} {list(masks.shape)}")
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {list(prediction.shape)} and truth {list(truth.shape)} differ in shape")
