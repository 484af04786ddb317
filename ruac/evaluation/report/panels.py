"""The report's picture panels: one object, its truth, and what each model answered."""

from __future__ import annotations

import base64
import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from einops import rearrange
from PIL import Image, ImageDraw
from scipy.ndimage import binary_erosion

from ruac.base.arrays import load_arrays
from ruac.base.errors import RuacError, brief, keys_of
from ruac.base.files import read_json
from ruac.data.sample import check_inside
from ruac.evaluation.report.overlay import NEGATIVE_COLOR, POSITIVE_COLOR, paint_mask, paint_uncertainty

TRUTH_COLOR = (0.16, 0.66, 0.36)
MISSED_COLOR = (0.48, 0.20, 0.86)
EXCESS_COLOR = (0.98, 0.45, 0.05)

# Picture side in pixels and JPEG quality, tried in this order until the panels fit the budget.
_QUALITIES = ((256, 82), (208, 76), (160, 70))


@dataclass(frozen=True)
class Answer:
    """One model's answer as three data URIs, and its IoU."""

    model: str
    j: float
    mask: str
    error: str
    uncertainty: str


@dataclass(frozen=True)
class Panel:
    """One object: the whole picture, a close-up with truth and clicks, and the models' answers."""

    domain: str
    image: str
    object: str
    case: str
    whole: str
    truth: str
    answers: list[Answer]

    @property
    def size(self) -> int:
        """Bytes of all pictures as embedded."""
        pictures = [self.whole, self.truth, *(p for a in self.answers for p in (a.mask, a.error, a.uncertainty))]
        return sum(map(len, pictures))


def load_panels(
    folder: Path, models: list[str], *, optional: set[str] = frozenset(), budget: int = 5_000_000
) -> tuple[list[Panel], int]:
    """Render the panels listed in ``folder/index.json`` so that they stay below `budget` bytes.

    Pictures shrink first; then panels are dropped, the last of each domain and case before the second of any. Panels
    of the domains `optional` are added while there is room, and shrink nothing.
    Returns the panels, the first of every domain and case before the second of any, and how many are listed.
    Raises `RuacError` naming a file that is missing, unreadable or lacks an array.
    """
    entries = _read_index(folder / "index.json")
    seen: Counter = Counter()
    places = []
    for number, entry in enumerate(entries):
        group = entry["domain"], entry["case"]
        places.append((entry["domain"] in optional, seen[group], number))
        seen[group] += 1
    panels: dict[int, Panel] = {}
    for side, quality in _QUALITIES:
        panels, left = {}, budget
        for _, _, number in sorted(places):
            with keys_of(folder.parent / entries[number]["file"]):
                panel = _render(folder.parent, entries[number], models, side, quality)
            left -= panel.size
            if left < 0:
                break
            panels[number] = panel
        if all(number in panels for extra, _, number in places if not extra):
            break
    return list(panels.values()), len(entries)


def close_up(truth: np.ndarray, masks: list[np.ndarray], points: np.ndarray) -> tuple[int, int, int, int]:
    """A square window (x0, y0, x1, y1) around the truth, its answers and the clicks, inside the image if it fits.

    Answers that reach far beyond the truth are cut at three times the truth's size, so that a mask which ran
    over the whole picture does not make the object invisible.
    """
    height, width = truth.shape
    shown = truth if truth.any() else np.any([truth, *masks], axis=0)
    if not shown.any():
        return 0, 0, width, height
    true_low, true_high = low, high = _bounds(shown)
    reach = (high - low).max()
    for mask in masks:
        if mask.any():
            mask_low, mask_high = _bounds(mask)
            low, high = np.minimum(low, mask_low), np.maximum(high, mask_high)
    low, high = np.maximum(low, true_low - reach), np.minimum(high, true_high + reach)
    if len(points):
        low, high = np.minimum(low, points.min(0)), np.maximum(high, points.max(0) + 1)
    side = int(np.ceil(max(1.25 * (high - low).max(), 48)))
    side_x, side_y = min(side, width), min(side, height)
    center = (low + high) / 2
    x0 = int(np.clip(center[0] - side_x / 2, 0, width - side_x))
    y0 = int(np.clip(center[1] - side_y / 2, 0, height - side_y))
    return x0, y0, x0 + side_x, y0 + side_y


def error_picture(image: np.ndarray, mask: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Missed pixels violet, excess pixels orange, over a pale grey image. All ``[H, W]``, image ``uint8 [H, W, 3]``."""
    grey = image.astype(np.float32).mean(-1, keepdims=True).repeat(3, -1)
    pale = (110.0 + 0.55 * grey).clip(0, 255).astype(np.uint8)
    missed = paint_mask(pale, truth & ~mask, MISSED_COLOR, opacity=0.85)
    return paint_mask(missed, mask & ~truth, EXCESS_COLOR, opacity=0.85)


def _render(results: Path, entry: dict, models: list[str], side: int, quality: int) -> Panel:
    arrays = _read_arrays(results, entry["file"])
    shown = [m for m in models if m in entry["models"]]
    image, truth = arrays["image"], arrays["truth"].astype(bool)
    points, labels = arrays["points"].reshape(-1, 2).astype(np.float32), arrays["labels"].reshape(-1)
    points, labels = points[labels >= 0], labels[labels >= 0]
    masks = {m: arrays[f"mask.{m}"].astype(bool) for m in shown}
    window = close_up(truth, list(masks.values()), points)
    frame = _Window(window, side)
    close = frame.image(image)
    close_truth = frame.mask(truth)

    answers = []
    for m in shown:
        mask = frame.mask(masks[m])
        uncertainty = frame.image(arrays[f"uncertainty.{m}"]).astype(np.float32) / 255.0
        answers.append(
            Answer(
                model=m,
                j=float(arrays[f"j.{m}"]),
                mask=_jpeg(_outlined(paint_mask(close, mask), mask), quality),
                error=_jpeg(error_picture(close, mask, close_truth), quality),
                uncertainty=_jpeg(paint_uncertainty(close, uncertainty), quality),
            )
        )
    outlined = _outlined(paint_mask(close, close_truth, TRUTH_COLOR, opacity=0.35), close_truth)
    return Panel(
        domain=str(entry["domain"]),
        image=str(entry["image"]),
        object=str(entry["object"]),
        case=str(entry["case"]),
        whole=_jpeg(_whole(image, window, side), quality),
        truth=_jpeg(_clicks(outlined, frame.points(points), labels), quality),
        answers=answers,
    )


class _Window:
    """Crops to a window and resizes it so that its longer side has `side` pixels."""

    def __init__(self, window: tuple[int, int, int, int], side: int) -> None:
        self.x0, self.y0, self.x1, self.y1 = window
        self.scale = side / max(self.x1 - self.x0, self.y1 - self.y0)
        self.size = (
            max(1, round((self.x1 - self.x0) * self.scale)),
            max(1, round((self.y1 - self.y0) * self.scale)),
        )

    def image(self, plane: np.ndarray) -> np.ndarray:
        cut = Image.fromarray(plane[self.y0 : self.y1, self.x0 : self.x1])
        return np.asarray(
            cut.resize(self.size, Image.Resampling.LANCZOS if self.scale < 1 else Image.Resampling.BICUBIC)
        )

    def mask(self, plane: np.ndarray) -> np.ndarray:
        cut = Image.fromarray(plane[self.y0 : self.y1, self.x0 : self.x1].astype(np.uint8) * 255)
        return np.asarray(cut.resize(self.size, Image.Resampling.BOX)) >= 128

    def points(self, points: np.ndarray) -> np.ndarray:
        return (points - (self.x0, self.y0) + 0.5) * self.scale


def _bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and one past the highest (x, y) of a mask that is not empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    return np.array([columns[0], rows[0]], float), np.array([columns[-1] + 1, rows[-1] + 1], float)


def _outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return paint_mask(picture, mask & ~binary_erosion(mask), (1.0, 1.0, 1.0), opacity=0.85)


def _whole(image: np.ndarray, window: tuple[int, int, int, int], side: int) -> np.ndarray:
    """The whole picture with the close-up's window framed."""
    height, width = image.shape[:2]
    frame = _Window((0, 0, width, height), side)
    picture = Image.fromarray(frame.image(image))
    box = [round(v * frame.scale) for v in window]
    x0, y0, x1, y1 = box[0], box[1], min(box[2], picture.width) - 1, min(box[3], picture.height) - 1
    draw = ImageDraw.Draw(picture)
    draw.rectangle((x0, y0, max(x0, x1), max(y0, y1)), outline="white", width=3)
    draw.rectangle((x0 + 1, y0 + 1, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1)), outline="black", width=1)
    return np.asarray(picture)


def _clicks(picture: np.ndarray, points: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Green plus for an object click, red minus for a background click, drawn large and shrunk to smooth them."""
    fine = Image.fromarray(picture).resize((2 * picture.shape[1], 2 * picture.shape[0]), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(fine)
    for (x, y), label in zip(2 * points, labels, strict=True):
        if label > 1:
            continue
        color = POSITIVE_COLOR if label == 1 else NEGATIVE_COLOR
        for ink, arm, half in (("white", 17, 7), (color, 14, 3.5)):
            draw.rectangle((x - arm, y - half, x + arm, y + half), fill=ink)
            if label == 1:
                draw.rectangle((x - half, y - arm, x + half, y + arm), fill=ink)
        if label == 1:
            draw.rectangle((x - 14, y - 3.5, x + 14, y + 3.5), fill=color)
    for (x0, y0), (x1, y1) in zip(2 * points[labels == 2], 2 * points[labels == 3], strict=False):
        draw.rectangle((min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)), outline=POSITIVE_COLOR, width=5)
    pixels = np.asarray(fine, np.float32)
    return rearrange(pixels, "(h i) (w j) c -> h w (i j) c", i=2, j=2).mean(2).round().astype(np.uint8)


def _jpeg(picture: np.ndarray, quality: int) -> str:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, format="JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _read_index(path: Path) -> list[dict]:
    entries = read_json(path, "not found; expected a list of panels")
    if not isinstance(entries, list):
        raise RuacError(f"{path}: expected a list of panels")
    for index, entry in enumerate(entries):
        for key in ("domain", "image", "object", "file", "case", "models"):
            if not isinstance(entry, dict) or key not in entry:
                raise RuacError(f"{path}: panel {index}: missing key '{key}'")
            names = entry[key] if isinstance(entry[key], list) else [entry[key]]
            if isinstance(entry[key], list) != (key == "models") or not all(isinstance(name, str) for name in names):
                expected = "a list of texts" if key == "models" else "a text"
                raise RuacError(f"{path}: panel {index}: key '{key}': {entry[key]!r}, expected {expected}")
        check_inside(entry["file"], f"{path}: panel {index}")
    return entries


class _Arrays(dict):
    def __init__(self, path: Path, arrays: dict) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, name: str) -> np.ndarray:
        raise RuacError(f"{self.path}: missing array '{name}'")


def _read_arrays(results: Path, file: str) -> _Arrays:
    """Read a panel, its path counted from the results folder."""
    path = results / file
    try:
        return _Arrays(path, load_arrays(path))
    except FileNotFoundError:
        raise RuacError(f"{path}: panel not found") from None
    except (KeyError, ValueError) as error:
        raise RuacError(f"{path}: not readable as a panel: {brief(error)}") from error
