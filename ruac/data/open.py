"""Open a data set whatever its format, and check it before work starts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.coco import CocoFolder
from ruac.data.davis import DavisTree
from ruac.data.folder import ImageMaskFolder
from ruac.data.sample import MaskDataset

READERS = {
    "coco": (CocoFolder, ("annotations.json", "images")),
    "folder": (ImageMaskFolder, ("images", "masks")),
    "davis": (DavisTree, ("JPEGImages", "Annotations")),
}
"""Reader of each format, and the entries of the folder that tell the format."""


def open_dataset(
    path: str | Path, *, split: str | None = None, format: str = "auto", name: str | None = None, **options: str
) -> MaskDataset:
    """Open the folder `path` with the reader of its format.

    split: a list of images or clips, as the reader understands it. format: a key of `READERS`, or
    "auto" to tell it from what the folder contains. name: the data set's name in results, by
    default the folder's. options: passed to the
    reader (``frames="all"`` of `DavisTree`; ``orientation="stored"`` of all).
    Raises `RuacError` for a missing folder, an unknown format, or anything the reader refuses.
    """
    path = Path(path)
    if format != "auto" and format not in READERS:
        raise RuacError(f"format: {format!r}, expected one of: auto, {', '.join(READERS)}")
    if not path.is_dir():
        raise RuacError(f"{path}: folder not found; expected a data set, one of: {_expected()}")
    if format == "auto":
        format = _detect(path)
    return READERS[format][0](path, split=split, name=name, **options)


def place_and_split(entry: str) -> tuple[str, str | None]:
    """``FOLDER`` or ``FOLDER@SPLIT`` taken apart; a folder may have an @ in its own name or on the way to it."""
    if Path(entry).is_dir():
        return entry, None
    place, _, split = entry.rpartition("@")
    return (place, split) if place and split else (entry.removesuffix("@"), None)


def validate_dataset(dataset: MaskDataset, progress: Callable[[int, int], None] | None = None) -> None:
    """Read every sample once and raise `RuacError` on the first that breaks the promises of `Sample`.

    progress: called with (samples read, samples in all) after each one.
    """
    seen: set[str] = set()
    for index, record in enumerate(dataset.records):
        where = f"{dataset.name}: image {record.id!r}"
        if record.id in seen:
            raise RuacError(f"{where}: the id occurs twice")
        seen.add(record.id)
        if len(set(record.object_ids)) != len(record.object_ids):
            raise RuacError(f"{where}: expected unique object ids, found {list(record.object_ids)}")
        sample = dataset[index]
        image, masks = sample.image, sample.masks
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise RuacError(f"{where}: image is {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]")
        expected = (len(record.object_ids), *image.shape[:2])
        if masks.dtype != bool or masks.shape != expected:
            raise RuacError(f"{where}: masks are {masks.dtype} {list(masks.shape)}, expected bool {list(expected)}")
        if len(empty := np.flatnonzero(~masks.any(axis=(1, 2)))):
            raise RuacError(f"{where}: object {record.object_ids[empty[0]]!r} has an empty mask")
        if progress is not None:
            progress(index + 1, len(dataset))


def _detect(path: Path) -> str:
    for name, (_, entries) in READERS.items():
        if all((path / entry).exists() for entry in entries):
            return name
    raise RuacError(f"{path}: format not recognised, expected one of: {_expected()}")


def _expected() -> str:
    return "; ".join(f"{name} ({' + '.join(entries)})" for name, (_, entries) in READERS.items())
