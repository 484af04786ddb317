"""COCO folders: ``images/`` beside ``annotations.json``, with RLE or polygon masks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ruac.base.errors import RuacError
from ruac.base.files import read_json
from ruac.data.sample import Record, Sample, check_inside, check_orientation, check_pixels, read_image, read_list


class CocoFolder:
    """The objects of a COCO instance file; masks are decoded when an image is read.

    root: folder with ``images/`` and ``annotations.json``. split: name of a ``<split>.txt`` in
    `root` that lists image file names, or None for all. orientation: one of `ORIENTATIONS`. Images
    without an object are left out, crowd annotations and those without a pixel too. An object's id is
    its ``object_id`` where the file has one (a field of ours), else its annotation id. Raises
    `RuacError` that names the file and the entry at fault.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        split: str | None = None,
        name: str | None = None,
        orientation: str = "seen",
    ):
        check_orientation(orientation)
        self._orientation = orientation
        self.root = Path(root)
        self.name = name or self.root.name
        self._file = self.root / "annotations.json"
        images, objects = read_annotations(self._file)
        objects = with_pixels(images, objects, self._file)
        if not (self.root / "images").is_dir():
            raise RuacError(f"{self.root / 'images'}: folder not found; expected it beside {self._file.name}")
        wanted = None if split is None else set(read_list(self.root / f"{split}.txt"))

        self.records: list[Record] = []
        self._annotations: list[list[dict]] = []
        self._sizes: list[tuple[int, int]] = []
        for key, image in images.items():
            if wanted is not None and image["file_name"] not in wanted:
                continue
            if objects[key]:
                path = self.root / "images" / image["file_name"]
                ids = tuple(str(a.get("object_id", a["id"])) for a in objects[key])
                if twice := [i for i in ids if ids.count(i) > 1]:
                    raise RuacError(f"{self._file}: image {image['file_name']!r}: object id {twice[0]!r} occurs twice")
                origin = str(image.get("origin", ""))
                self.records.append(Record(str(image["file_name"]), path, ids, origin, (self._file,)))
                self._annotations.append(objects[key])
                self._sizes.append((image["height"], image["width"]))
        if wanted is not None and (lost := wanted - {i["file_name"] for i in images.values()}):
            raise RuacError(f"{self.root / split}.txt: {sorted(lost)[0]!r} is not in {self._file.name}")
        if not self.records:
            raise RuacError(f"{self._file}: no image with an object{'' if split is None else f' in split {split!r}'}")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        height, width = self._sizes[index]
        image = read_image(record.path, size=(height, width), orientation=self._orientation)
        if image.shape[:2] != (height, width):
            raise RuacError(
                f"{record.path}: is {image.shape[1]}x{image.shape[0]} pixels, "
                f"{self._file.name} says {width}x{height} (width x height)"
            )
        masks = [self._decode(a, height, width) for a in self._annotations[index]]
        return Sample(record, image, np.stack(masks))

    def _decode(self, annotation: dict, height: int, width: int) -> np.ndarray:
        where = f"{self._file}: annotation {annotation['id']}"
        mask = rle.decode(to_rle(annotation["segmentation"], height, width, where)).astype(bool)
        if not mask.any():
            raise RuacError(f"{where}: the mask is empty")
        return mask


def read_annotations(path: Path) -> tuple[dict[Any, dict], dict[Any, list[dict]]]:
    """The images of a COCO instance file by id, and the annotations of each; crowd annotations are left out.

    Raises `RuacError` that names the entry at fault: broken JSON, missing or mistyped keys, ids and
    file names that occur twice, annotations of unknown images.
    """
    content = _read_json(path)
    images = _index(content["images"], path)
    objects: dict[Any, list[dict]] = {key: [] for key in images}
    for position, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{position}]"
        _check_entry(annotation, {"id": (int, str), "image_id": (int, str), "segmentation": (list, dict)}, where)
        if annotation["image_id"] not in objects:
            raise RuacError(f"{where}: image_id {annotation['image_id']!r} is not in 'images'")
        if not annotation.get("iscrowd", 0):
            objects[annotation["image_id"]].append(annotation)
    return images, objects


def with_pixels(images: dict[Any, dict], objects: dict[Any, list[dict]], path: Path) -> dict[Any, list[dict]]:
    """`objects` without those that have no pixel, which a warning counts: boxes alone, lines, empty masks."""
    kept, bare = {}, []
    for key, own in objects.items():
        kept[key] = []
        for annotation in own:
            empty = _has_no_pixel(annotation["segmentation"], images[key]["height"], images[key]["width"])
            (bare if empty else kept[key]).append(annotation)
    if bare:
        first = bare[0]["id"]
        warnings.warn(f"{path}: {len(bare)} annotations without a pixel left out, the first: {first!r}", stacklevel=3)
    return kept


def _has_no_pixel(code: list | dict, height: int, width: int) -> bool:
    """Only what may be empty is drawn, so that opening stays fast; what is malformed is said by whoever reads it."""
    try:
        if isinstance(code, list):
            outlines = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in code]
            if any(abs(_twice_area(points)) > 8 for points in outlines):
                return False
        elif len(code["counts"]) > 8:
            return False
        return not code or not rle.area(to_rle(code, height, width, ""))
    except (RuacError, KeyError, TypeError, ValueError):
        return False


def _twice_area(points: np.ndarray) -> float:
    x, y = points.T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1))


def to_rle(code: list | dict, height: int, width: int, where: str) -> dict:
    """A COCO ``segmentation`` (polygons, plain or compressed RLE) as checked compressed RLE.

    Raises `RuacError` that begins with `where` if it is malformed or does not fit the picture.
    """
    try:
        if isinstance(code, list):  # polygons
            _check_polygons(code, height, width, where)
            return rle.merge(rle.frPyObjects(code, height, width))
        if list(code["size"]) != [height, width]:
            raise RuacError(f"{where}: RLE size {code['size']}, expected [{height}, {width}] (height, width)")
        plain = isinstance(code["counts"], list)
        runs = np.asarray(code["counts"], np.int64) if plain else _run_lengths(code["counts"])
        if (runs < 0).any() or runs.sum() != height * width:  # pycocotools would leave memory unset
            raise RuacError(f"{where}: RLE counts sum to {runs.sum()}, expected {height * width}, none negative")
        return rle.frPyObjects(code, height, width) if plain else code
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError) as error:
        raise RuacError(f"{where}: 'segmentation' is neither polygons nor RLE: {error!r:.300}") from error


def _check_polygons(polygons: list, height: int, width: int, where: str) -> None:
    if not polygons or any(len(p) < 6 or len(p) % 2 for p in polygons):
        raise RuacError(f"{where}: a polygon needs at least 3 points, as a flat x, y list")
    for polygon in polygons:
        points = np.asarray(polygon, np.float64).reshape(-1, 2)
        if min(height, width) > 2 and points.min() >= 0 and points.max() <= 1 and (points % 1).any():
            raise RuacError(f"{where}: a polygon within 0 to 1, expected pixels and not shares of the picture's size")
        size = np.array([width, height])
        outside = ~((points >= -size) & (points <= 2 * size))  # not the reverse, which NaN would pass
        if outside.any():
            x, y = points[outside.any(axis=1)][0]
            raise RuacError(f"{where}: point ({x:g}, {y:g}) lies far outside the {width}x{height} picture")


def _run_lengths(counts: str) -> np.ndarray:
    """The runs of a compressed RLE: 5 bits a character, lowest first, and from the third run differences."""
    digits = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - 48
    last = digits & 32 == 0
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or not last[-1]:
        raise ValueError("broken RLE string")
    end = np.flatnonzero(last)
    start = np.concatenate([[0], end[:-1] + 1])
    if (end - start).max() > 6:
        raise ValueError("broken RLE string")
    place = 5 * (np.arange(len(digits)) - np.repeat(start, end - start + 1))
    runs = np.add.reduceat((digits & 31) << place, start)
    runs -= np.where(digits[end] & 16, 1 << (place[end] + 5), 0)  # the sign bit of the last character
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def _read_json(path: Path) -> dict:
    content = read_json(path, "not found; expected a COCO folder with images/ and annotations.json")
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise RuacError(f"{path}: expected a list under the key '{key}'")
    return content


def _index(entries: list, path: Path) -> dict[Any, dict]:
    index: dict[Any, dict] = {}
    names: set[str] = set()
    for position, entry in enumerate(entries):
        where = f"{path}: images[{position}]"
        _check_entry(entry, {"id": (int, str), "file_name": (str,), "width": (int,), "height": (int,)}, where)
        check_inside(entry["file_name"], where)
        check_pixels(entry["height"], entry["width"], where)
        if entry["id"] in index:
            raise RuacError(f"{where}: id {entry['id']!r} occurs twice")
        if entry["file_name"] in names:
            raise RuacError(f"{where}: file_name {entry['file_name']!r} occurs twice")
        index[entry["id"]] = entry
        names.add(entry["file_name"])
    return index


def _check_entry(entry: Any, types: dict[str, tuple[type, ...]], where: str) -> None:
    if not isinstance(entry, dict):
        raise RuacError(f"{where}: expected a mapping of keys, found {type(entry).__name__}")
    for key, allowed in types.items():
        if key not in entry:
            raise RuacError(f"{where}: key '{key}' is missing")
        if not isinstance(entry[key], allowed) or isinstance(entry[key], bool):
            expected = " or ".join(t.__name__ for t in allowed)
            raise RuacError(f"{where}: '{key}' is {entry[key]!r}, expected {expected}")
