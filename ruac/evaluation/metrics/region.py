"""Where pixels are counted: disk dilation and the band around an object.

Most pixels of an image are easy background and swamp every pixel statistic, so results are given for the whole
image and for the band.
"""

from __future__ import annotations

import math

import numpy as np

BAND_SHARE = 0.25
BAND_MIN_RADIUS = 3.0


def object_band(truth: np.ndarray) -> np.ndarray:
    """The object band of each true mask: the pixels over which "band" statistics are summed.

    Definition: all pixels within Euclidean distance ``r = max(3, 0.25 * sqrt(area))`` pixels of the object, the
    object itself included; ``area`` is the number of true pixels of that object at full resolution. Around a disk
    of 150 pixels or more the band is 2.08 times the object, so background is about half of it; around long or
    ragged shapes background is more. The band depends on the truth alone, so every model is judged on the same
    pixels. An empty mask has an empty band.

    truth: ``bool [N, H, W]``. Returns ``bool [N, H, W]``. Raises `ValueError` for another shape or dtype.
    """
    if truth.ndim != 3 or truth.dtype != np.bool_:
        raise ValueError(f"truth: expected bool [N, H, W], got {truth.dtype} {list(truth.shape)}")
    band = np.zeros_like(truth)
    for mask, out in zip(truth, band, strict=True):  # each object has its own crop: cost follows the object
        if (box := bounding_box(mask)) is None:
            continue
        crop = mask[box]
        radius = max(BAND_MIN_RADIUS, BAND_SHARE * math.sqrt(np.count_nonzero(crop)))
        box = pad_box(box, math.floor(radius), mask.shape)
        out[box] = dilate(mask[box], radius)
    return band


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """Dilate ``bool [H, W]`` by a disk: True within Euclidean distance `radius` of a True pixel, exactly.

    Linear in the number of pixels whatever the radius. A pixel at vertical distance g from the mask reaches
    ``w(g) = floor(sqrt(radius^2 - g^2))`` columns to either side, and the union of these intervals in a row is two
    running extrema.
    """
    height, width = mask.shape
    if not height or not width:
        return mask.copy()
    far = height + width + int(radius) + 1
    rows = np.arange(height, dtype=np.int32)[:, None]
    above = np.maximum.accumulate(np.where(mask, rows, np.int32(-far)), axis=0)
    below = np.minimum.accumulate(np.where(mask, rows, np.int32(2 * far))[::-1], axis=0)[::-1]
    steps = math.floor(radius)
    gap = np.minimum(np.minimum(rows - above, below - rows), steps + 1)

    square = math.floor(radius * radius)
    reach = np.array([math.isqrt(square - g * g) for g in range(steps + 1)] + [-far], dtype=np.int32).take(gap)
    columns = np.arange(width, dtype=np.int32)
    from_left = np.maximum.accumulate(columns + reach, axis=1) >= columns
    from_right = np.minimum.accumulate((columns - reach)[:, ::-1], axis=1)[:, ::-1] <= columns
    return from_left | from_right


def bounding_box(mask: np.ndarray) -> tuple[slice, slice] | None:
    """Smallest box of ``bool [H, W]`` that holds every True pixel; None if there is none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return slice(top, bottom), slice(int(columns[0]), int(columns[-1]) + 1)


def pad_box(box: tuple[slice, slice], margin: int, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Grow a box by `margin` pixels on every side, within an image of the given shape."""
    rows, columns = (
        slice(max(0, side.start - margin), min(size, side.stop + margin)) for side, size in zip(box, shape, strict=True)
    )
    return rows, columns
