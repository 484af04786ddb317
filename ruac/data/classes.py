"""Data sets with classes: a label map per picture, and the objects of every class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ruac.base.errors import RuacError, keys_of
from ruac.base.files import read_json
from ruac.data.coco import CocoFolder, read_annotations
from ruac.data.id_masks import check_size, read_ids
from ruac.data.sample import IMAGE_SUFFIXES, image_size, read_image, read_list

IGNORE = 255
SMALLEST = 16  # pixels of a component of a label map that counts as an object


@dataclass(frozen=True)
class ClassedSample:
    """image: ``uint8 [H, W, 3]``. labels: ``uint8 [H, W]``, `IGNORE` where unknown; None without any truth. objects:
    ``bool [N, H, W]``, may overlap, with their classes, int64 ``[N]``."""

    image: np.ndarray
    labels: np.ndarray | None
    objects: np.ndarray
    classes: np.ndarray


class ClassFolder:
    """Pictures with classes, from one of four trees.

    A COCO folder, whose annotations have a ``label`` or a named category; a pixel of several objects belongs to the
    smallest, one of none is background, or unknown without `background`. ``images/`` beside ``labels/STEM.png``
    (value = class, 255 = unknown) and ``classes.txt`` (a name per line, from class 0 on); a picture without a PNG has
    no truth, and objects are the connected parts of a class, of at least `SMALLEST` pixels. Or Pascal VOC 2012 or
    Cityscapes as they are downloaded (`ruac.data.class_trees`), read in the same way.

    names: of the classes; the first is the background, if there is one. files: names of the pictures, in order.
    Raises `RuacError` that names the file or entry at fault.
    """

    def __init__(self, root: str | Path, *, background: bool = True):
        self.root, self.background = Path(root), background
        if (self.root / "annotations.json").is_file():
            self._source = _Coco(self.root, background)
        elif (self.root / "labels").is_dir():
            self._source = _Maps(self.root, background)
        else:
            from ruac.data.class_trees import open_tree  # it builds on this file

            self._source = open_tree(self.root, background)
        self.names: list[str] = self._source.names
        self.files: list[str] = self._source.files
        if len(self.names) < 2 or len(self.names) > IGNORE:
            raise RuacError(f"{self.root}: {len(self.names)} classes ({', '.join(self.names)}), expected 2 to {IGNORE}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> ClassedSample:
        return self._source.read(index)

    def image(self, index: int) -> np.ndarray:
        """The picture alone."""
        return self._source.image(index)

    def labels(self, index: int) -> np.ndarray | None:
        """The labels alone, which objects cost most of the time to find."""
        return self._source.labels(index)

    def path(self, index: int) -> Path:
        return self._source.path(index)

    def has_truth(self, index: int) -> bool:
        return self._source.has_truth(index)

    def places(self, split: str) -> list[int]:
        """Places of the pictures that ``<split>.txt`` lists, or the file `split` itself, if it is called ``.txt``.

        Raises `RuacError` for one that is not there."""
        listed = Path(split) if split.endswith(".txt") else self._source.lists / f"{split}.txt"
        order = {name: place for place, name in enumerate(self.files)}
        stems = {Path(name).stem: place for name, place in order.items()}
        found = []
        for line in read_list(listed):
            place = order.get(line, stems.get(line))
            if place is None:
                raise RuacError(f"{listed}: {line!r} is no picture with classes of {self.root}")
            found.append(place)
        return sorted(set(found))


class _Coco:
    def __init__(self, root: Path, background: bool):
        self.lists = root
        self._data = CocoFolder(root)
        self._file = root / "annotations.json"
        images, objects = read_annotations(self._file)
        category = self._categories()
        own = {image["file_name"]: objects[key] for key, image in images.items()}
        self._classes: list[list[str]] = []
        for record in self._data.records:
            with keys_of(f"{self._file}: image {record.id!r}"):
                named = {
                    str(a.get("object_id", a["id"])): a.get("label") or category.get(a.get("category_id"))
                    for a in own[record.id]
                }
            for key in record.object_ids:
                if not isinstance(named[key], str):
                    raise RuacError(f"{self._file}: annotation {key}: has no 'label' and no category with a name")
            self._classes.append([named[key] for key in record.object_ids])
        found = sorted({name for names in self._classes for name in names})
        self.names = (["background"] if background else []) + found
        self.files = [record.id for record in self._data.records]
        self._background = background

    def _categories(self) -> dict:
        with keys_of(f"{self._file}: categories"):
            entries = read_json(self._file).get("categories") or []
            return {entry.get("id"): entry.get("name") for entry in entries if isinstance(entry, dict)}

    def path(self, index: int) -> Path:
        return self._data.records[index].path

    def has_truth(self, index: int) -> bool:
        return True

    def image(self, index: int) -> np.ndarray:
        return self._data[index].image  # which may lie as its annotations do

    def labels(self, index: int) -> np.ndarray:
        return self.read(index).labels

    def read(self, index: int) -> ClassedSample:
        sample = self._data[index]
        classes = np.array([self.names.index(name) for name in self._classes[index]])
        labels = np.full(sample.image.shape[:2], 0 if self._background else IGNORE, np.uint8)
        for place in np.argsort(-sample.masks.sum(axis=(1, 2)), kind="stable"):
            labels[sample.masks[place]] = classes[place]
        return ClassedSample(sample.image, labels, sample.masks, classes)


class LabelMaps:
    """Label maps beside pictures: what all trees of them share. labels: of a picture, its map (absent: no truth)."""

    def __init__(self, lists: Path, names: list[str], background: bool, labels: dict[Path, Path]):
        self.lists, self.names, self._first = lists, names, int(background)
        self._pictures, self._labels = list(labels), list(labels.values())
        self.files = [picture.name for picture in labels]

    def path(self, index: int) -> Path:
        return self._pictures[index]

    def has_truth(self, index: int) -> bool:
        return self._labels[index].is_file()

    def classes_of(self, ids: np.ndarray) -> np.ndarray:
        """Classes of the values in a map."""
        return ids

    def image(self, index: int) -> np.ndarray:
        return read_image(self._pictures[index])

    def labels(self, index: int) -> np.ndarray | None:
        picture, path = self._pictures[index], self._labels[index]
        if not self.has_truth(index):
            return None
        labels = self.classes_of(read_ids(path))
        check_size(labels, image_size(picture, orientation="seen"), path, picture)
        if len(wrong := labels[(labels != IGNORE) & (labels >= len(self.names))]):
            raise RuacError(
                f"{path}: found label {wrong[0]}, expected 0 to {len(self.names) - 1} or {IGNORE} (unknown)"
            )
        return labels.astype(np.uint8)

    def read(self, index: int) -> ClassedSample:
        image, labels = self.image(index), self.labels(index)
        masks, classes = [], []
        if labels is None:
            return ClassedSample(image, None, np.zeros((0, *image.shape[:2]), bool), np.zeros(0, np.int64))
        for k in range(self._first, len(self.names)):
            parts, count = ndimage.label(labels == k)
            for part in range(1, count + 1):
                if (mask := parts == part).sum() >= SMALLEST:
                    masks.append(mask)
                    classes.append(k)
        stacked = np.stack(masks) if masks else np.zeros((0, *labels.shape), bool)
        return ClassedSample(image, labels, stacked, np.array(classes, np.int64))


class _Maps(LabelMaps):
    def __init__(self, root: Path, background: bool):
        names = read_list(root / "classes.txt")
        if not (root / "images").is_dir():
            raise RuacError(f"{root / 'images'}: folder not found; expected it beside labels/")
        pictures = sorted(p for p in (root / "images").iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        if not pictures:
            raise RuacError(f"{root / 'images'}: holds no picture")
        super().__init__(root, names, background, {p: root / "labels" / f"{p.stem}.png" for p in pictures})
        stems = {picture.stem for picture in pictures}
        for path in sorted((root / "labels").glob("*.png")):
            if path.stem not in stems:
                raise RuacError(f"{path}: label map without a picture; expected {root / 'images' / path.stem}.*")
