"""Objects as polygons and run-length codes: COCO and LVIS, YouTube-VIS, VIA, labelme."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json
from ruac.data.coco import read_annotations, to_rle
from ruac.data.domains.picture import Picture, picture_id
from ruac.data.domains.places import image_in
from ruac.data.sample import check_inside, check_pixels, image_size

Entry = tuple[str, Any]  # object id, COCO segmentation
"""An object: its id and its code, polygons ``[[x, y, x, y, ...], ...]`` or RLE."""


@dataclass(frozen=True)
class Coded:
    """The coded objects of a picture. file: where they are written. entries: the objects, or a function
    that reads them from the file. size: (H, W) as the file says it, None if it does not. holes: polygons
    inside polygons are holes (even-odd rule) instead of parts. hint: reads (H, W) from a file whose sizes are not
    to be relied on, but tell stored pixels from those that a person sees."""

    file: Path
    entries: tuple[Entry, ...] | Callable[[Path], tuple[Entry, ...]]
    size: tuple[int, int] | None = None
    holes: bool = False
    hint: Callable[[Path], tuple[int, int] | None] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (self.file,)

    def drawn_on(self) -> tuple[int, int] | None:
        return self.hint(self.file) if self.hint else self.size

    def object_ids(self, image: Path, orientation: str = "seen") -> tuple[list[str], int]:
        size = self.size or self._size_of(image, orientation)
        entries = self._entries()
        ids = [key for key, code in entries if self._rle(key, code, size) is not None]
        if len(set(ids)) < len(ids):
            raise RuacError(f"{self.file}: {image.name}: object id {max(ids, key=ids.count)!r} occurs twice")
        return ids, len(entries) - len(ids)

    def masks(self, ids: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
        if self.size not in (None, size):
            raise RuacError(
                f"{self.file}: says {self.size[1]}x{self.size[0]} pixels, "
                f"but the image has {size[1]}x{size[0]} (width x height)"
            )
        codes = dict(self._entries())
        return np.stack([rle.decode(self._rle(key, codes[key], size)).astype(bool) for key in ids])

    def _size_of(self, image: Path, orientation: str) -> tuple[int, int]:
        stored = image_size(image)
        return stored if self.hint and self.hint(self.file) == stored else image_size(image, orientation=orientation)

    def _entries(self) -> tuple[Entry, ...]:
        return self.entries(self.file) if callable(self.entries) else self.entries

    def _rle(self, key: str, code: Any, size: tuple[int, int]) -> dict | None:
        """None for an object without pixels: polygons of less than three points, or off the picture."""
        where = f"{self.file}: object {key}"
        if isinstance(code, list):
            code = [polygon for polygon in code if not isinstance(polygon, list) or len(polygon) >= 6]
            if not code:
                return None
        if self.holes and isinstance(code, list) and len(code) > 1:
            parts = np.stack([rle.decode(to_rle([polygon], *size, where)) for polygon in code])
            result = rle.encode(np.asfortranarray(np.bitwise_xor.reduce(parts)))
        else:
            result = to_rle(code, *size, where)
        return result if rle.area(result) else None


def coco(file: Path, images: Path, split: str, *, rename: Callable[[str], str] = str) -> Iterator[Picture]:
    """The pictures of a COCO instance file. rename: from ``file_name`` to the path below `images`."""
    entries, objects = read_annotations(file)
    for key, entry in entries.items():
        name = rename(entry["file_name"])
        codes = tuple((str(a["id"]), a["segmentation"]) for a in objects[key])
        coded = Coded(file, codes, (entry["height"], entry["width"]))
        yield Picture(picture_id(split, name), image_in(images, name, file.name), coded)


def video(file: Path, images: Path, split: str, *, every: bool) -> Iterator[Picture]:
    """YouTube-VIS: every frame, or the first of each video that shows an object; an object is a track."""
    content, videos = read_json(file), {}
    for position, entry in enumerate(list_of(content, "videos", file)):
        with keys_of(f"{file}: videos[{position}]"):
            check_pixels(entry["height"], entry["width"], f"{file}: videos[{position}]")
            for name in entry["file_names"]:
                check_inside(name, f"{file}: videos[{position}]")
            videos[entry["id"]] = entry
    tracks: dict[Any, list[dict]] = {key: [] for key in videos}
    for position, track in enumerate(list_of(content, "annotations", file)):
        with keys_of(f"{file}: annotations[{position}]"):
            if track["video_id"] not in videos:
                raise RuacError(f"{file}: annotations[{position}]: video_id {track['video_id']!r} is not in 'videos'")
            if len(track["segmentations"]) != len(videos[track["video_id"]]["file_names"]):
                raise RuacError(f"{file}: annotations[{position}]: expected one segmentation per frame, or null")
            tracks[track["video_id"]].append({"id": track["id"], "segmentations": list(track["segmentations"])})
    for key, entry in videos.items():
        for frame, name in enumerate(entry["file_names"]):
            codes = tuple((str(t["id"]), t["segmentations"][frame]) for t in tracks[key] if t["segmentations"][frame])
            if codes:
                coded = Coded(file, codes, (entry["height"], entry["width"]))
                yield Picture(picture_id(split, name), image_in(images, name, file.name), coded)
                if not every:
                    break


def via(file: Path, images: Path, split: str) -> Iterator[Picture]:
    """VGG Image Annotator: an object is a region, its id the region's number. Other shapes than polygons and
    polylines (closed here) have no pixels."""
    content = read_json(file)
    content = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(content, dict):
        raise RuacError(f"{file}: expected a VIA export: a mapping of images")
    for key, entry in content.items():
        with keys_of(f"{file}: {key!r}"):
            regions = entry["regions"]
            numbered = regions.items() if isinstance(regions, dict) else enumerate(regions)
            codes = tuple((str(number), _via_polygon(region["shape_attributes"])) for number, region in numbered)
            check_inside(name := entry["filename"], f"{file}: {key!r}")
        yield Picture(picture_id(split, name), image_in(images, name, file.name), Coded(file, codes))


def _via_polygon(shape: dict) -> list[list[float]]:
    if shape["name"] not in ("polygon", "polyline"):
        return []
    points = zip(shape["all_points_x"], shape["all_points_y"], strict=True)
    return [[coordinate for point in points for coordinate in point]]


def labelme(file: Path) -> tuple[Entry, ...]:
    """The shapes of a labelme file; those that share ``label`` and ``group_id`` are one object, as in labelme's own
    export. An object's id is its shape's number or ``groupG``, with the label where several use that number."""
    objects: dict[tuple[Any, Any], list] = {}
    for number, shape in enumerate(list_of(read_json(file), "shapes", file)):
        with keys_of(f"{file}: shapes[{number}]"):
            group, label = shape.get("group_id"), shape.get("label")
            key = (number, None) if group is None else (f"group{group}", label)
            objects.setdefault(key, []).append(_labelme_outline(shape))
    groups = Counter(group for group, _ in objects)
    return tuple(
        (str(group) if groups[group] == 1 else f"{group}/{label}", outlines)
        for (group, label), outlines in objects.items()
    )


def labelme_size(file: Path) -> tuple[int, int] | None:
    """``imageHeight``, ``imageWidth`` of a labelme file."""
    content = read_json(file)
    size = [content.get(key) for key in ("imageHeight", "imageWidth")] if isinstance(content, dict) else []
    return tuple(size) if size and all(isinstance(side, int) for side in size) else None


def _labelme_outline(shape: dict) -> list[float]:
    """Flat x, y of a shape's outline; lines and points have no pixels."""
    kind, points = shape.get("shape_type", "polygon"), np.asarray(shape["points"], float).reshape(-1, 2)
    if kind == "rectangle":
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif kind == "circle":  # its centre, and a point on it
        turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        points = points[0] + np.hypot(*(points[1] - points[0])) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    elif kind != "polygon":
        points = points[:0]
    return points.reshape(-1).tolist()


def list_of(content: Any, key: str, file: Path) -> list:
    """The list under `key`. Raises `RuacError` if there is none."""
    if not isinstance(content, dict) or not isinstance(content.get(key), list):
        raise RuacError(f"{file}: expected a list under the key {key!r}")
    return content[key]
