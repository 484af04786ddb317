"""Pixels and places of napari's layers, as the predictor takes them, and its answer as layers; needs no napari."""

from __future__ import annotations

from typing import Any

import numpy as np

from ruac.base.errors import RuacError
from ruac.inference.predictor import Predictor

LayerData = tuple[np.ndarray, dict[str, Any], str]
"""Data, settings and kind of a layer, as napari takes them from a plugin."""


def picture_pixels(data: np.ndarray, *, rgb: bool, limits: tuple[float, float]) -> np.ndarray:
    """``uint8 [H, W, 3]`` of an image layer's data, ``[H, W]`` or with rgb ``[H, W, 3 or 4]``.

    limits: what is shown as black and as white; bytes in colour stay as they are. Raises `RuacError` for a stack.
    """
    data = np.asarray(data)
    if data.ndim != (3 if rgb else 2):
        raise RuacError(f"picture: layer of {data.shape}, expected one plane, [H, W] or in colour")
    pixels = data[..., :3] if rgb else np.repeat(data[..., None], 3, axis=2)
    if rgb and data.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    low, high = (0.0, 1.0) if rgb else limits
    shown = (pixels.astype(np.float64) - low) / max(high - low, np.finfo(float).tiny)
    return np.rint(255 * shown.clip(0, 1)).astype(np.uint8)


def answer_layers(
    predictor: Predictor,
    picture: np.ndarray,
    *,
    clicks: np.ndarray | None = None,
    background: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    look: bool = False,
) -> list[LayerData]:
    """Layers ``mask``, the objects' numbers ``uint16 [H, W]``, and ``doubt``, total uncertainty ``float32 [H, W]``.

    clicks, background: ``[P, 2]`` (row, column), all of one object. boxes: ``[N, 4]`` first and last row and column
    as (row, column, row, column), an object each, or the box of the clicked one. Where objects overlap the more
    reliable mask lies above, and the larger doubt counts. look: a second look (zoom). Raises `RuacError` without a
    prompt, for clicks with several boxes, and as `Predictor.predict` does.
    """
    clicks, background = (
        np.zeros((0, 2)) if each is None else np.asarray(each, float) for each in (clicks, background)
    )
    points = np.concatenate([clicks, background])[:, ::-1]
    labels = np.repeat([1, 0], [len(clicks), len(background)])
    boxes = None if boxes is None or not len(boxes) else np.asarray(boxes, float)[:, [1, 0, 3, 2]]
    if len(points) and boxes is not None and len(boxes) > 1:
        raise RuacError(
            f"{len(points)} clicks and {len(boxes)} boxes: clicks are of one object, expected at most one box"
        )
    predictor.set_image(picture)
    prompts = {"point_coords": points, "point_labels": labels} if len(points) else {}
    answers = predictor.predict(**prompts, box=boxes, looks=["zoom"] if look else None).each()
    ids, doubt = np.zeros(picture.shape[:2], np.uint16), np.zeros(picture.shape[:2], np.float32)
    for number in sorted(range(len(answers)), key=lambda number: answers[number].trust[0]):
        ids[answers[number].masks[0]] = number + 1
        doubt = np.maximum(doubt, answers[number].uncertainty[0])
    seen = {"colormap": "inferno", "contrast_limits": (0, 1), "blending": "additive", "opacity": 0.6}
    return [(ids, {"name": "mask", "opacity": 0.4}, "labels"), (doubt, {"name": "doubt", **seen}, "image")]
