"""Where to click next, and what to hope for, from a mask and its probability map alone.

The truth is imagined as ``T_t = {p > t}`` with t uniform in (0, 1): each pixel then is object with its probability p,
and pixels err together, as they do in real masks, instead of each on its own. For every t it is known where the mask
is wrong, what the click of an annotator who sees it would be, the centre of the wrong region, and what it would mend.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ruac.backbone.prompts import BACKGROUND, OBJECT
from ruac.base.errors import RuacError
from ruac.inference.expected_iou import LEVELS, levels

SIDE = 256  # a larger region is looked at in steps of several pixels


@dataclass(frozen=True)
class NextClick:
    """point: (x, y), a pixel of the picture. label: 1 if object is expected to be missing there, 0 if the mask is
    expected to be too large there; the person who clicks says what is true. gain: expected rise of the IoU if the click
    mends the wrong region that it lies in. expected_iou: before it, in the same imagined truths."""

    point: tuple[int, int]
    label: int
    gain: float
    expected_iou: float


def next_click(mask: np.ndarray, probability: np.ndarray, clicked: np.ndarray | None = None) -> NextClick | None:
    """The pixel that lies deepest in the wrong region, on average over imagined truths.

    Depth is the distance to the border of the region, as in the evaluation's own corrections (evaluation, sec. 2);
    earlier clicks are borders too, so that none is repeated. None where no pixel has any doubt left.

    mask: ``bool [H, W]``. probability: of the object, ``[H, W]``. clicked: ``[P, 2]`` (x, y) earlier clicks. Raises
    `RuacError` for maps of different shapes.
    """
    if mask.ndim != 2 or mask.shape != probability.shape:
        raise RuacError(f"next_click: mask {mask.shape} and probability {probability.shape}, expected one [H, W]")
    open_ = np.ones(mask.shape, bool)
    for x, y in np.asarray([] if clicked is None else clicked, dtype=float).reshape(-1, 2).round().astype(int):
        open_[y.clip(0, mask.shape[0] - 1), x.clip(0, mask.shape[1] - 1)] = False
    doubt = np.where(mask, 1 - probability, probability)
    crop, step = _window(doubt > 1 / (2 * LEVELS))
    if crop is None:
        return None
    # In steps, a pixel that was clicked stands for its neighbours.
    near, p = mask[crop], probability[crop]
    free = -ndimage.maximum_filter(-open_.astype(np.int8), step)[crop] > 0
    depth = np.zeros(near.shape)
    for level in levels():
        depth += _depth(_wrong(near, p, level) & free)
    if not depth.any():
        return None
    y, x = np.unravel_index(depth.argmax(), depth.shape)
    before, after = _ious(mask[::step, ::step], probability[::step, ::step], near, p, (y, x))
    label = BACKGROUND if near[y, x] else OBJECT
    point = (int(crop[1].start + step * x), int(crop[0].start + step * y))
    return NextClick(point, label, float((after - before).mean()), float(before.mean()))


def _wrong(mask: np.ndarray, probability: np.ndarray, level: float) -> np.ndarray:
    return mask ^ (probability > level)


def _window(region: np.ndarray) -> tuple[tuple[slice, slice] | None, int]:
    """The box of a region, in steps that leave at most `SIDE` of its pixels a side."""
    if not region.any():
        return None, 1
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    step = math.ceil(max(np.ptp(rows), np.ptp(columns), 1) / SIDE)
    return (slice(rows[0], rows[-1] + 1, step), slice(columns[0], columns[-1] + 1, step)), step


def _depth(region: np.ndarray) -> np.ndarray:
    """Distance of each pixel of a region to its border; the picture's own edge is one."""
    return ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]


def _ious(
    mask: np.ndarray, probability: np.ndarray, near: np.ndarray, near_p: np.ndarray, place: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """IoU with each imagined truth, ``[LEVELS]``, before and after the region at `place` of the window is mended."""
    before, after = [], []
    for level in levels():
        truth = probability > level
        shared, union = np.count_nonzero(mask & truth), np.count_nonzero(mask | truth)
        parts, _ = ndimage.label(_wrong(near, near_p, level))
        mended = np.count_nonzero(parts == parts[place]) if parts[place] else 0
        before.append(shared / union if union else 1.0)
        if near[place]:
            shared, union = shared, union - mended
        else:
            shared = shared + mended
        after.append(shared / union if union else 1.0)
    return np.array(before), np.array(after)
