"""The plugin's one command, of which napari makes a widget by its signature."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import napari.layers
    import napari.types

    from ruac.inference.predictor import Predictor

PLACEMENT = ("scale", "translate", "rotate", "shear", "affine")


def segment(
    picture: napari.layers.Image,
    clicks: napari.layers.Points | None = None,
    background: napari.layers.Points | None = None,
    boxes: napari.layers.Shapes | None = None,
    second_look: bool = False,
) -> list[napari.types.LayerDataTuple]:
    """Mask and doubt of what is clicked, or lies in the boxes; see `answer_layers`. Any shape counts by its box.

    Both layers lie where the picture lies. Raises `RuacError`, which napari shows, for prompts that do not fit.
    """
    from ruac.viewer.layers import answer_layers, picture_pixels

    pixels = picture_pixels(picture.data, rgb=picture.rgb, limits=tuple(picture.contrast_limits))
    shapes = [] if boxes is None else [_places(picture, boxes, corners) for corners in boxes.data]
    found = answer_layers(
        _predictor(),
        pixels,
        clicks=None if clicks is None else _places(picture, clicks, clicks.data),
        background=None if background is None else _places(picture, background, background.data),
        boxes=np.array([[*corners.min(0), *corners.max(0)] for corners in shapes]).reshape(-1, 4),
        look=second_look,
    )
    where = {name: getattr(picture, name) for name in PLACEMENT}
    return [(data, where | about, kind) for data, about, kind in found]


def _places(picture: Any, layer: Any, data: np.ndarray) -> np.ndarray:
    """Places of a layer in the picture's pixels, ``[P, 2]`` (row, column), inside of it."""
    places = np.array([picture.world_to_data(layer.data_to_world(place)) for place in data]).reshape(-1, 2)
    return places.clip(0, np.array(picture.data.shape[:2]))


@cache
def _predictor() -> Predictor:
    from ruac import Predictor

    return Predictor()
