"""COCO folders: ``images/`` beside ``annotations.json``, with RLE or polygon masks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle

from ruac.data.sample import Record, Sample, read_image
from ruac.errors import RuacError


class CocoFolder:
    """The objects of a COCO instance file; masks are decoded when an image is read.

    root: folder with ``images/`` and ``annotations.json``. split: name of a ``<split>.txt`` in
    `root` that lists image file names, or None for all. Images without an object are left out,
    crowd annotations too. Raises `RuacError` that names the file and the entry at fault.
    """

    def __init__(self, root: str | Path, *, split: str | None = None, name: str | None = None):
        self.root = Path(root)
        self.name = name or self.root.name
        self._file = self.root / "annotations.json"
        content = _read_json(self._file)
        images = _index(content, "images", self._file)
        wanted = None if split is None else _read_split(self.root / f"{split}.txt")
        objects: dict[Any, list[dict]] = {key: [] for key in images}
        for position, annotation in enumerate(content["annotations"]):
            where = f"{self._file}: annotations[{position}]"
            for key in ("id", "image_id", "segmentation"):
                if key not in annotation:
                    raise RuacError(f"{where}: key '{key}' is missing")
            if annotation["image_id"] not in objects:
                raise RuacError(f"{where}: image_id {annotation['image_id']!r} is not in 'images'")
            if not annotation.get("iscrowd", 0):
                objects[annotation["image_id"]].append(annotation)

        self.records: list[Record] = []
        self._annotations: list[list[dict]] = []
        self._sizes: list[tuple[int, int]] = []
        for key, image in images.items():
            if wanted is not None and image["file_name"] not in wanted:
                continue
            if objects[key]:
                path = self.root / "images" / image["file_name"]
                ids = tuple(str(a["id"]) for a in objects[key])
                self.records.append(Record(str(image["file_name"]), path, ids, str(image.get("origin", ""))))
                self._annotations.append(objects[key])
                self._sizes.append((int(image["height"]), int(image["width"])))
        if wanted is not None and (lost := wanted - {i["file_name"] for i in images.values()}):
            raise RuacError(f"{self.root / split}.txt: {sorted(lost)[0]!r} is not in {self._file.name}")
        if not self.records:
            raise RuacError(f"{self._file}: no image with an object{'' if split is None else f' in split {split!r}'}")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        image = read_image(record.path)
        height, width = self._sizes[index]
        if image.shape[:2] != (height, width):
            raise RuacError(
                f"{record.path}: is {image.shape[1]}x{image.shape[0]} pixels, "
                f"{self._file.name} says {width}x{height} (width x height)"
            )
        masks = [self._decode(a, height, width) for a in self._annotations[index]]
        return Sample(record, image, np.stack(masks))

    def _decode(self, annotation: dict, height: int, width: int) -> np.ndarray:
        where = f"{self._file}: annotation {annotation['id']}"
        code = annotation["segmentation"]
        try:
            if isinstance(code, list):  # polygons, each a flat x, y list
                if not code or any(len(p) < 6 or len(p) % 2 for p in code):
                    raise RuacError(f"{where}: a polygon needs at least 3 points, as a flat x, y list")
                code = rle.merge(rle.frPyObjects(code, height, width))
            elif list(code["size"]) != [height, width]:
                raise RuacError(f"{where}: RLE size {code['size']}, expected [{height}, {width}] (height, width)")
            elif isinstance(code["counts"], list):
                if sum(code["counts"]) != height * width:
                    raise RuacError(f"{where}: RLE counts sum to {sum(code['counts'])}, expected {height * width}")
                code = rle.frPyObjects(code, height, width)
            mask = rle.decode(code).astype(bool)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise RuacError(f"{where}: 'segmentation' is neither polygons nor RLE: {error!r}") from error
        if not mask.any():
            raise RuacError(f"{where}: the mask is empty")
        return mask


def _read_json(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise RuacError(f"{path}: not found; expected a COCO folder with images/ and annotations.json") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RuacError(f"{path}: broken JSON: {error}") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise RuacError(f"{path}: expected a list under the key '{key}'")
    return content


def _index(content: dict, key: str, path: Path) -> dict[Any, dict]:
    index: dict[Any, dict] = {}
    for position, entry in enumerate(content[key]):
        for field in ("id", "file_name", "width", "height"):
            if field not in entry:
                raise RuacError(f"{path}: {key}[{position}]: key '{field}' is missing")
        if entry["id"] in index:
            raise RuacError(f"{path}: {key}[{position}]: id {entry['id']!r} occurs twice")
        index[entry["id"]] = entry
    return index


def _read_split(path: Path) -> set[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise RuacError(f"{path}: split list not found") from None
    return {line.strip() for line in lines if line.strip()}
