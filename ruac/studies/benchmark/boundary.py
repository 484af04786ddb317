"""Boundary F against the straightforward loop: two distance transforms of the whole image per object."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from ruac.evaluation.metrics import boundary_f
from ruac.studies.benchmark.cases import Case
from ruac.studies.benchmark.rows import Row, fastest

LEAST, TOLERANCE = 10, 1e-6


def run(*, side: int, objects: int, repeats: int) -> list[Row]:
    """`boundary_f` of shifted masks. Ratio: seconds of the loop to ours; for the values, their largest difference."""
    truth = Case(side=side, objects=objects).sample().masks
    prediction = np.roll(truth, (side // 200 + 1, side // 100 + 1), axis=(1, 2))
    works = {
        "ours": lambda: boundary_f(prediction, truth),
        "loop": lambda: boundary_f_by_distance(prediction, truth),
    }
    seconds = fastest(works, repeats=repeats)
    values = [work() for work in works.values()]
    difference = float(np.abs(values[0] - values[1]).max())
    title = f"{side} px, {objects} objects"
    return [
        Row(f"{title}: distance transforms", seconds["loop"], 1.0),
        Row(f"{title}: boundary_f", seconds["ours"], seconds["loop"] / seconds["ours"], f">= {LEAST}"),
        Row(f"{title}: largest difference of F", seconds["ours"], difference, f"<= {TOLERANCE:g}"),
    ]


def boundary_f_by_distance(prediction: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """F of ``bool [N, H, W]`` masks, ``float64 [N]``."""
    radius = math.ceil(0.008 * math.hypot(*truth.shape[1:]))
    scores = []
    for ours, theirs in zip(map(davis_boundary, prediction), map(davis_boundary, truth), strict=True):
        if not ours.any() or not theirs.any():
            scores.append(float(ours.any() == theirs.any()))
            continue
        precision = (ndimage.distance_transform_edt(~theirs)[ours] <= radius).mean()
        recall = (ndimage.distance_transform_edt(~ours)[theirs] <= radius).mean()
        scores.append(2 * precision * recall / (precision + recall) if precision + recall else 0.0)
    return np.array(scores)


def davis_boundary(mask: np.ndarray) -> np.ndarray:
    """Pixels of ``bool [H, W]`` that differ from the next right, below or diagonally; the frame never differs."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge
