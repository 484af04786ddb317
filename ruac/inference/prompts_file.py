"""What is asked of the pictures of a folder, from a file: JSON of our own, or the boxes of a COCO file."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json

KEYS = ("box", "points", "labels", "class")
UNNAMED = "object"
"""The class of an object that has no name."""


@dataclass(frozen=True)
class ObjectPrompt:
    """One object. box: x0, y0, x1, y1 in picture pixels. points: (x, y), with labels 1 (object) or 0 (background).

    kind: its class.
    """

    box: tuple[float, ...] | None = None
    points: tuple[tuple[float, float], ...] = ()
    labels: tuple[int, ...] = ()
    kind: str = UNNAMED

    def check_inside(self, size: tuple[int, int]) -> None:
        """Raise `RuacError` for a place outside a picture of `size` (H, W)."""
        height, width = size
        corners = [] if self.box is None else [self.box[:2], self.box[2:]]
        for x, y in [*corners, *self.points]:
            if not (0 <= x <= width and 0 <= y <= height):
                raise RuacError(f"prompt ({x:g}, {y:g}): outside the {width}x{height} picture")

    def entry(self) -> dict[str, Any]:
        """As the file says it, without the class."""
        box = {} if self.box is None else {"box": list(self.box)}
        points = {"points": [list(p) for p in self.points], "labels": list(self.labels)} if self.points else {}
        return box | points


def read_prompts(path: str | Path, pictures: Iterable[str]) -> dict[str, list[ObjectPrompt]]:
    """Prompts by picture, all of them checked but for the pictures' sizes.

    Own form: ``{"FILE": [{"box": [x0, y0, x1, y1], "points": [[x, y], ...], "labels": [1, 0, ...], "class": NAME},
    ...]}``, where each object has a box, points or both; labels are 1 where they are not given, and a class is free
    text. A COCO file (keys ``images`` and ``annotations``): the ``bbox`` of every annotation that is no crowd, with
    its category's name. FILE and ``file_name`` are relative to the folder of pictures, with ``/``.

    Raises `RuacError` that names the entry: broken JSON, an unknown key or picture, or numbers of another shape.
    """
    path = Path(path)
    content = read_json(path, "not found; expected a JSON file of prompts")
    if not isinstance(content, dict):
        raise RuacError(f"{path}: expected a mapping from pictures to lists of prompts, or a COCO file")
    names = set(pictures)
    if isinstance(content.get("images"), list) and isinstance(content.get("annotations"), list):
        with keys_of(path):
            return _coco(content, names, path)
    found = {}
    for name, entries in content.items():
        _known(name, names, f"{path}: {name!r}")
        if not isinstance(entries, list):
            raise RuacError(f"{path}: {name!r}: expected a list of prompts")
        found[name] = [_prompt(entry, f"{path}: {name!r}[{place}]") for place, entry in enumerate(entries)]
    return found


def _coco(content: dict, names: set[str], path: Path) -> dict[str, list[ObjectPrompt]]:
    kinds = {entry.get("id"): str(entry.get("name")) for entry in _mappings(content, "categories", path)}
    files = {}
    for place, image in enumerate(_mappings(content, "images", path)):
        if not isinstance(image.get("id"), int | str):
            raise RuacError(f"{path}: images[{place}]: id {image.get('id')!r}, expected a number or a text")
        files[image["id"]] = image.get("file_name")
        _known(image.get("file_name"), names, f"{path}: images[{place}]")
    found: dict[str, list[ObjectPrompt]] = {name: [] for name in files.values()}
    for place, annotation in enumerate(_mappings(content, "annotations", path)):
        where = f"{path}: annotations[{place}]"
        if not isinstance(key := annotation.get("image_id"), int | str) or key not in files:
            raise RuacError(f"{where}: image_id {key!r} is not in 'images'")
        if annotation.get("iscrowd"):
            continue
        x, y, width, height = _numbers(annotation.get("bbox"), (4,), f"{where}: bbox")
        kind = kinds.get(annotation.get("category_id"), UNNAMED)
        found[files[key]].append(_prompt({"box": [x, y, x + width, y + height], "class": kind}, where))
    return found


def _prompt(entry: Any, where: str) -> ObjectPrompt:
    if not isinstance(entry, dict) or not ("box" in entry or "points" in entry):
        raise RuacError(f"{where}: expected a mapping with a box, points or both")
    for key in entry:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1, cutoff=0.0)
            raise RuacError(f"{where}: unknown key {key!r}; did you mean {near[0]!r}?")
    box, points, labels = None, (), ()
    if "box" in entry:
        box = tuple(_numbers(entry["box"], (4,), f"{where}: box"))
        if box[2] <= box[0] or box[3] <= box[1]:
            raise RuacError(f"{where}: box {list(box)}, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
    if "points" in entry:
        points = tuple(map(tuple, _numbers(entry["points"], (None, 2), f"{where}: points")))
        labels = entry.get("labels", [1] * len(points))
        if not isinstance(labels, list) or len(labels) != len(points) or any(each not in (0, 1) for each in labels):
            raise RuacError(f"{where}: labels {labels!r}, expected {len(points)}, each 1 (object) or 0 (background)")
        labels = tuple(int(each) for each in labels)
    elif "labels" in entry:
        raise RuacError(f"{where}: labels without points")
    kind = entry.get("class", UNNAMED)
    if not isinstance(kind, str) or not kind:
        raise RuacError(f"{where}: class {kind!r}, expected a name")
    return ObjectPrompt(box, points, labels, kind)


def _numbers(values: Any, shape: tuple[int | None, ...], where: str) -> list:
    """Finite numbers of that shape as nested lists, None for a length of at least one."""
    try:
        array = np.asarray(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    fits = array.ndim == len(shape) and all(
        length == wanted or (wanted is None and length) for length, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or not np.isfinite(array).all():
        expected = "x, y pairs" if len(shape) == 2 else f"{shape[0]} numbers"
        raise RuacError(f"{where}: {values!r}, expected {expected}")
    return array.tolist()


def _known(name: Any, names: set[str], where: str) -> None:
    if not isinstance(name, str) or name not in names:
        near = difflib.get_close_matches(str(name), sorted(names), n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise RuacError(f"{where}: {name!r} is no picture of the folder{hint}")


def _mappings(content: dict, key: str, path: Path) -> list[dict]:
    entries = content.get(key) or []
    for place, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise RuacError(f"{path}: {key}[{place}]: expected a mapping of keys, found {type(entry).__name__}")
    return entries
