"""A session and its answer as two pictures: the mask with its bounds and clicks, and the doubt."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from ruac.backbone.prompts import OBJECT
from ruac.demo.answer import Shown
from ruac.demo.session import Session
from ruac.evaluation.report.overlay import (
    MASK_COLOR,
    NEGATIVE_COLOR,
    POSITIVE_COLOR,
    paint_mask,
    paint_uncertainty,
)

LONGEST = 768  # of a drawn picture: small ones are enlarged to it, large ones reduced
INNER_COLOR, OUTER_COLOR, NEXT_COLOR = (255, 255, 255), (250, 204, 21), (217, 70, 239)
_MASK = tuple(round(255 * value) for value in MASK_COLOR)


def scale_of(picture: np.ndarray) -> float:
    """Drawn pixels per pixel of the picture."""
    return LONGEST / max(picture.shape[:2])


def place_of(picture: np.ndarray, drawn_x: float, drawn_y: float) -> tuple[float, float]:
    """Where in the picture (x, y) a drawn pixel lies that was clicked on; its middle, kept inside."""
    height, width = picture.shape[:2]
    scale = scale_of(picture)
    return min((drawn_x + 0.5) / scale, width - 1), min((drawn_y + 0.5) / scale, height - 1)


def draw(session: Session, shown: Shown | None, *, bounds: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Mask and doubt over the picture, ``uint8 [h, w, 3]`` each, the longer side `LONGEST`.

    bounds: also the outlines of inner and outer mask. Without an answer both are the plain picture. Raises ValueError
    without a picture.
    """
    if session.picture is None:
        raise ValueError("draw: expected a session with a picture")
    plain = _resized(session.picture, Image.Resampling.BILINEAR)
    if shown is None:
        return plain, plain
    mask = _resized(shown.mask)
    left = paint_mask(plain, mask)
    right = paint_uncertainty(plain, _resized(shown.uncertainty, Image.Resampling.BILINEAR))
    for painted in (left, right):
        painted[_outline(mask)] = _MASK
    if bounds:
        left[_outline(_resized(shown.outer))] = OUTER_COLOR
        left[_outline(_resized(shown.inner))] = INNER_COLOR
    return _with_clicks(left, session, shown), right


def _resized(array: np.ndarray, how: Image.Resampling = Image.Resampling.NEAREST) -> np.ndarray:
    """``[H, W]`` or ``[H, W, 3]`` at the drawn size, in its own type."""
    height, width = array.shape[:2]
    scale = LONGEST / max(height, width)
    size = (max(1, round(scale * width)), max(1, round(scale * height)))
    image = Image.fromarray(array.astype(np.uint8) * 255) if array.dtype == bool else Image.fromarray(array)
    drawn = np.array(image.resize(size, how))
    return drawn >= 128 if array.dtype == bool else drawn


def _outline(mask: np.ndarray) -> np.ndarray:
    """The outermost pixels of a mask, two wide."""
    return mask & ~ndimage.binary_erosion(mask, iterations=2)


def _with_clicks(painted: np.ndarray, session: Session, shown: Shown) -> np.ndarray:
    image, scale = Image.fromarray(painted), scale_of(session.picture)
    pen = ImageDraw.Draw(image)
    for x, y, label in session.clicks:
        color = POSITIVE_COLOR if label == OBJECT else NEGATIVE_COLOR
        for width, fill in ((8, "white"), (4, color)):
            pen.line([(x * scale - 9, y * scale), (x * scale + 9, y * scale)], fill=fill, width=width)
            if label == OBJECT:
                pen.line([(x * scale, y * scale - 9), (x * scale, y * scale + 9)], fill=fill, width=width)
    if shown.suggestion is not None:
        x, y = ((value + 0.5) * scale for value in shown.suggestion.point)
        for radius, fill, width in ((13, "white", 6), (12, NEXT_COLOR, 3)):
            pen.ellipse([x - radius, y - radius, x + radius, y + radius], outline=fill, width=width)
    return np.array(image)
