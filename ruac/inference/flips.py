"""A picture turned around, and the prompts that go with it."""

from __future__ import annotations

from ruac.backbone.prompts import BOX_FIRST, BOX_SECOND, Prompts

FLIPS = {"horizontal": (-1,), "vertical": (-2,), "both": (-2, -1)}
"""Axes of ``[..., H, W]`` that are turned around."""


def flip_prompts(prompts: Prompts, flip: str, frame: tuple[int, int]) -> Prompts:
    """The same prompts on the flipped image of `frame` (h, w) model pixels; box corners change sides, so that the
    first stays first.

    A point stands for the middle of its pixel, as in SAM 2's prompt encoder: x becomes ``w - 1 - x``.
    """
    points = prompts.points.clone()
    first, second = prompts.labels == BOX_FIRST, prompts.labels == BOX_SECOND
    for axis in FLIPS[flip]:
        coordinate = points[..., -1 - axis]  # axis -1 of an image is x, which comes first in a point
        coordinate.copy_(frame[axis] - 1 - coordinate)
        coordinate[first], coordinate[second] = coordinate[second], coordinate[first]
    mask_logits = None if prompts.mask_logits is None else prompts.mask_logits.flip(FLIPS[flip])
    return Prompts(points, prompts.labels, mask_logits)
