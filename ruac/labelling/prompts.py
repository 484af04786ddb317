"""What is asked of the model: a class and a box or a click for every object of a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ruac.backbone.prompts import boxes_of, central_pixel
from ruac.base.errors import RuacError
from ruac.base.files import read_json
from ruac.data.classes import ClassedSample, ClassFolder
from ruac.data.sample import image_size

KINDS = ("boxes", "points")


@dataclass(frozen=True)
class ClassPrompt:
    """kind: the class, a place in the names. box: x0, y0, x1, y1, or points ``[P, 2]`` inside the object; pixels."""

    kind: int
    box: np.ndarray | None = None
    points: np.ndarray | None = None


def annotated_prompts(sample: ClassedSample, how: str) -> list[ClassPrompt]:
    """A prompt for every annotated object: its tight box (``boxes``) or a click at its middle (``points``)."""
    if how == "boxes":
        boxes = boxes_of(torch.from_numpy(sample.objects)).reshape(-1, 4).numpy()
        return [ClassPrompt(int(k), box=box) for k, box in zip(sample.classes, boxes, strict=True)]
    clicks = [np.array([central_pixel(mask)], dtype=float) for mask in sample.objects]
    return [ClassPrompt(int(k), points=click) for k, click in zip(sample.classes, clicks, strict=True)]


def read_prompts(path: str | Path, dataset: ClassFolder) -> dict[str, list[ClassPrompt]]:
    """Prompts of every picture from a JSON file, all of them checked.

    ``{"FILE": [{"class": NAME, "box": [x0, y0, x1, y1]}, {"class": NAME, "points": [[x, y], ...]}, ...], ...}``; a
    picture that is not in it has no prompt. Raises `RuacError` that names the entry: an unknown file or class, the
    background, no box and no points, or a prompt outside the picture.
    """
    path = Path(path)
    if not path.exists():
        raise RuacError(f"prompts: {path} not found; expected {', '.join(KINDS)} or a JSON file")
    content = read_json(path)
    if not isinstance(content, dict):
        raise RuacError(f"{path}: expected a mapping from pictures to lists of prompts")
    places = {name: place for place, name in enumerate(dataset.files)}
    found = {}
    for name, entries in content.items():
        if name not in places:
            raise RuacError(f"{path}: {name!r} is no picture with classes of {dataset.root}")
        if not isinstance(entries, list):
            raise RuacError(f"{path}: {name!r}: expected a list of prompts")
        size = image_size(dataset.path(places[name]))[::-1]
        found[name] = [_prompt(e, dataset, size, f"{path}: {name!r}[{i}]") for i, e in enumerate(entries)]
    return found


def _prompt(entry: Any, dataset: ClassFolder, size: tuple[int, int], where: str) -> ClassPrompt:
    if not isinstance(entry, dict) or ("box" in entry) == ("points" in entry):
        raise RuacError(f"{where}: expected a class with either a box or points")
    allowed = dataset.names[int(dataset.background) :]
    if (name := entry.get("class")) not in allowed:
        raise RuacError(f"{where}: class {name!r}, expected one of: {', '.join(allowed)}")
    kind = dataset.names.index(name)
    try:
        numbers = np.array(entry.get("box", entry.get("points")), dtype=float)
    except (TypeError, ValueError, OverflowError):
        raise RuacError(f"{where}: expected numbers") from None
    if "box" in entry:
        if numbers.shape != (4,) or not (numbers[2:] > numbers[:2]).all():
            raise RuacError(f"{where}: box {entry['box']}, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
    elif numbers.ndim != 2 or numbers.shape[1] != 2 or not len(numbers):
        raise RuacError(f"{where}: points {entry['points']}, expected a list of [x, y]")
    pairs = numbers.reshape(-1, 2)
    if not ((pairs >= 0) & (pairs <= size)).all():
        raise RuacError(f"{where}: outside the {size[0]}x{size[1]} picture")
    return ClassPrompt(kind, box=numbers) if "box" in entry else ClassPrompt(kind, points=numbers)
