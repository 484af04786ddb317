"""One picture for one answer: the mask on the image, and beside it where that mask may be wrong."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image

from ruac.base.errors import RuacError
from ruac.base.files import atomic_path

MASK_COLOR = (0.05, 0.62, 0.90)
POSITIVE_COLOR = "#16a34a"
NEGATIVE_COLOR = "#dc2626"
COLORBAR_LABEL = "uncertainty (0 certain, 1 coin toss)"

_COLORS = matplotlib.colormaps["inferno"]
_INK = "#1f2328"
_DPI = 200
LONGEST = 4096  # pixels of the longer side that are drawn: more than any figure shows, and drawing holds 20 maps
_FORMATS = {"": "PNG", ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF"}


def paint_mask(
    image: np.ndarray, mask: np.ndarray, color: tuple[float, float, float] = MASK_COLOR, opacity: float = 0.42
) -> np.ndarray:
    """Lay a translucent colour over the pixels of `mask`.

    image: ``uint8 [H, W, 3]``. mask: ``bool [H, W]``. color: RGB in [0, 1]. Returns ``uint8 [H, W, 3]``.
    """
    painted = image.astype(np.float32)
    painted[mask] += opacity * (255.0 * np.asarray(color, np.float32) - painted[mask])
    return painted.round().astype(np.uint8)


def paint_uncertainty(image: np.ndarray, uncertainty: np.ndarray, opacity: float = 0.74) -> np.ndarray:
    """Lay the colour map of `uncertainty` over a grey version of `image`.

    The grey image is flattened in contrast: it gives orientation without changing which colour is read.

    image: ``uint8 [H, W, 3]``. uncertainty: ``float [H, W]`` in [0, 1]. Returns ``uint8 [H, W, 3]``.
    """
    grey = image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    colors = _COLORS(np.clip(uncertainty, 0.0, 1.0))[..., :3].astype(np.float32) * 255.0
    painted = opacity * colors + (1.0 - opacity) * (60.0 + 0.7 * grey)[..., None]
    return painted.round().clip(0, 255).astype(np.uint8)


def uncertainty_colors(count: int = 9) -> list[str]:
    """Hex colours of the map, from certain to uncertain, as `paint_uncertainty` shows them on mid-grey."""
    ramp = np.linspace(0.0, 1.0, count)[None]
    painted = paint_uncertainty(np.full((1, count, 3), 110, np.uint8), ramp)[0]
    return ["#" + bytes(color).hex() for color in painted]


def draw_overlay(
    image: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray,
    *,
    title: str | None = None,
    points: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> np.ndarray:
    """Draw mask and uncertainty side by side, with a colour bar.

    image: ``uint8 [H, W, 3]`` RGB. mask: ``bool [H, W]``. uncertainty: ``float [H, W]`` in [0, 1].
    points: ``[P, 2]`` (x, y) in pixels. labels: ``[P]``, 1 object, 0 background, 2 and 3 the corners of
    a box, -1 padding; all 1 when left out.

    Returns a ``uint8 [h, w, 3]`` RGB picture at 200 dots per inch. Raises ValueError when shapes disagree.
    """
    image, mask, uncertainty = np.asarray(image), np.asarray(mask).astype(bool), np.asarray(uncertainty, np.float32)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: expected uint8 [H, W, 3], got {image.dtype} {list(image.shape)}")
    for name, plane in (("mask", mask), ("uncertainty", uncertainty)):
        if plane.shape != image.shape[:2]:
            raise ValueError(f"{name}: expected {list(image.shape[:2])} as the image, got {list(plane.shape)}")
    points = np.zeros((0, 2)) if points is None else np.asarray(points, np.float32).reshape(-1, 2)
    labels = np.ones(len(points), int) if labels is None else np.asarray(labels).reshape(-1)
    if len(points) != len(labels):
        raise ValueError(f"labels: expected {len(points)}, one per point, got {len(labels)}")

    uncertainty = np.nan_to_num(uncertainty, nan=1.0)
    if (step := -(-max(mask.shape) // LONGEST)) > 1:
        image, uncertainty = (np.asarray(Image.fromarray(whole).reduce(step)) for whole in (image, uncertainty))
        mask = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).reduce(step)) >= 128
        points = (points + 0.5) / step - 0.5

    figure, (left, right, bar) = _layout(image.shape[0] / image.shape[1], title)
    left.imshow(paint_mask(image, mask), interpolation="antialiased")
    draw_outline(left, mask)
    draw_clicks(left, points, labels)
    right.imshow(paint_uncertainty(image, uncertainty), interpolation="antialiased")
    draw_outline(right, mask, width=0.7)
    for axes, name in ((left, "Mask"), (right, "Uncertainty")):
        axes.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5), xticks=[], yticks=[])
        axes.set_title(name, loc="left", fontsize=9, color=_INK, pad=4)
        axes.spines[:].set_visible(False)
    shown = ListedColormap(uncertainty_colors(256))
    scale = figure.colorbar(ScalarMappable(Normalize(0, 1), shown), cax=bar, ticks=[0, 0.25, 0.5, 0.75, 1])
    scale.set_label(COLORBAR_LABEL, fontsize=8, color=_INK)
    scale.ax.tick_params(labelsize=7.5, colors=_INK, length=2.5, width=0.6)
    scale.outline.set_visible(False)

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save_overlay(path: str | Path, image: np.ndarray, mask: np.ndarray, uncertainty: np.ndarray, **options) -> None:
    """Write `draw_overlay` in the format of the name, whole or not at all. `options` are its keywords.

    Raises `RuacError` when `path` cannot be written, or for a name of another format.
    """
    kind = picture_format(path)
    picture = draw_overlay(image, mask, uncertainty, **options)
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format=kind, dpi=(_DPI, _DPI), quality=95)


def picture_format(path: str | Path) -> str:
    """Pillow's name of the format that the name of `path` says, PNG without a suffix. Raises `RuacError` for others."""
    suffix = Path(path).suffix.lower()
    if suffix not in _FORMATS:
        raise RuacError(f"{path}: expected a name that ends in {', '.join(s for s in _FORMATS if s)}")
    return _FORMATS[suffix]


def draw_outline(axes: Axes, mask: np.ndarray, color=MASK_COLOR, width: float = 1.4) -> None:
    """Trace the border of `mask` on `axes`; a frame of zeros closes shapes that touch the image's edge."""
    if not mask.any():
        return
    rows, columns = (np.arange(-1, size + 1) for size in mask.shape)
    axes.contour(columns, rows, np.pad(mask, 1).astype(np.float32), [0.5], colors=[color], linewidths=width)


def draw_clicks(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """Mark object clicks with a green plus, background clicks with a red minus, and frame a box prompt."""
    halo = [withStroke(linewidth=4.6, foreground="white")]
    for label, marker, color in ((1, "+", POSITIVE_COLOR), (0, "_", NEGATIVE_COLOR)):
        chosen = points[labels == label]
        if len(chosen):
            axes.plot(*chosen.T, marker, color=color, ms=9, mew=2.2, path_effects=halo, clip_on=False, zorder=5)
    for (x0, y0), (x1, y1) in zip(points[labels == 2], points[labels == 3], strict=False):
        axes.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, ec=POSITIVE_COLOR, lw=1.6, path_effects=halo))


def _layout(ratio: float, title: str | None) -> tuple[Figure, tuple[Axes, Axes, Axes]]:
    """A figure with two equal axes of height / width = `ratio` and a colour bar as tall as they are, in inches."""
    wide = float(np.clip(4.0 / np.sqrt(ratio), 2.4, 5.2))
    tall = float(np.clip(wide * ratio, 1.9, 8.0))
    edge, gap, bar_wide, bar_text, head = 0.12, 0.14, 0.13, 0.62, 0.30 + (0.24 if title else 0.0)
    size = (2 * edge + 2 * wide + 2 * gap + bar_wide + bar_text, tall + head + edge)
    figure = Figure(figsize=size, dpi=_DPI, facecolor="white")

    def place(x: float, width: float) -> Axes:
        return figure.add_axes((x / size[0], edge / size[1], width / size[0], tall / size[1]))

    axes = place(edge, wide), place(edge + wide + gap, wide), place(edge + 2 * (wide + gap), bar_wide)
    if title:
        text = title.replace("$", r"\$")
        figure.text(edge / size[0], 1 - 0.1 / size[1], text, va="top", fontsize=11, fontweight="bold", color=_INK)
    return figure, axes
