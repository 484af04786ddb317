"""Boundary F by two distance transforms of the whole image per object: the straightforward loop, for comparison."""

import math

import numpy as np
from scipy import ndimage


def davis_boundary(mask):
    """Pixels of ``bool [H, W]`` that differ from the next right, below or diagonally; the frame never differs."""
    edge = np.zeros_like(mask)
    edge[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def boundary_f_by_distance(prediction, truth):
    """F of ``bool [N, H, W]`` masks, ``[N]``."""
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
