"""Plain folders: ``images/`` beside ``masks/``, paired by file stem."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.id_masks import check_size, read_objects, split_ids, values_in, values_in_files
from ruac.data.sample import IMAGE_SUFFIXES, Record, Sample, check_orientation, image_size, read_image, read_list


class ImageMaskFolder:
    """The objects of ``images/<stem>.*`` in ``masks/<stem>.png`` or in the folder ``masks/<stem>/``.

    A mask file holds one object per value (8 or 16 bit, or a palette; 0 = background), which
    makes 0/255 one object. A folder holds one 0/1 or 0/255 PNG per object; those may overlap.
    Object ids are the values or the names of the mask files.

    root: folder with ``images/`` and ``masks/``. split: name of a ``<split>.txt`` in `root` that
    lists stems or image file names, or None for all. Images without an object are left out. Mask
    files with one object per value are read once here, because they alone know their objects.
    Raises `RuacError` that names the file at fault.
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
        images, masks = _images(self.root / "images"), _masks(self.root / "masks")
        if split is not None:
            wanted = [_stem(line) for line in read_list(self.root / f"{split}.txt")]
            if lost := [stem for stem in wanted if stem not in images]:
                raise RuacError(f"{self.root / split}.txt: {lost[0]!r} is not in {self.root / 'images'}")
            images = {stem: images[stem] for stem in sorted(set(wanted))}
            masks = {stem: path for stem, path in masks.items() if stem in images}
        for stem, path in images.items():
            if stem not in masks:
                raise RuacError(f"{path}: image without a mask; expected {self.root / 'masks' / stem}.png or a folder")
        for stem, path in masks.items():
            if stem not in images:
                raise RuacError(f"{path}: mask without an image; expected {self.root / 'images' / stem}.jpg or .png")

        self.records: list[Record] = []
        self._masks: list[Path] = []
        single = [stem for stem in images if masks[stem].is_file()]
        values = dict(zip(single, values_in_files(masks[stem] for stem in single), strict=True))
        for stem, path in images.items():
            files = [masks[stem]] if stem in values else _pngs(masks[stem])
            ids = [str(v) for v in values[stem]] if stem in values else [p.stem for p in files]
            if ids:
                self.records.append(Record(stem, path, tuple(ids), annotations=tuple(files)))
                self._masks.append(masks[stem])
        if not self.records:
            raise RuacError(f"{self.root / 'masks'}: no image has an object; every mask is 0 everywhere")

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record, path = self.records[index], self._masks[index]
        if path.is_dir():
            image = read_image(record.path, size=image_size(_pngs(path)[0]), orientation=self._orientation)
            masks = np.stack([_read_binary(p, image, record.path) for p in _pngs(path)])
        else:
            ids = read_objects(path)
            image = read_image(record.path, size=ids.shape, orientation=self._orientation)
            check_size(ids, image.shape[:2], path, record.path)
            masks = split_ids(ids, [int(v) for v in record.object_ids])
        if len(masks) != len(record.object_ids) or not masks.any(axis=(1, 2)).all():
            raise RuacError(f"{path}: has changed since the data set was opened")
        return Sample(record, image, masks)


def _read_binary(path: Path, image: np.ndarray, image_path: Path) -> np.ndarray:
    ids = read_objects(path)
    check_size(ids, image.shape[:2], path, image_path)
    values = values_in(ids)
    if len(values) != 1:
        found = "is empty" if not values else f"holds the values {values[:3]}"
        raise RuacError(f"{path}: {found}, expected one object: 0 outside and one other value inside")
    return ids > 0


def _images(folder: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    for path in _listing(folder):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            raise RuacError(f"{path}: expected an image, one of: {', '.join(IMAGE_SUFFIXES)}")
        if path.stem in images:
            raise RuacError(f"{path}: shares its stem with {images[path.stem].name}; expected one image per stem")
        images[path.stem] = path
    return images


def _masks(folder: Path) -> dict[str, Path]:
    masks: dict[str, Path] = {}
    for path in _listing(folder):
        if not path.is_dir() and path.suffix.lower() != ".png":
            raise RuacError(f"{path}: expected a PNG mask or a folder of PNG masks")
        if path.is_dir() and not _pngs(path):
            raise RuacError(f"{path}: no PNG inside; expected one mask per object")
        stem = path.name if path.is_dir() else path.stem
        if stem in masks:
            raise RuacError(f"{path}: {masks[stem].name} exists too; expected either a mask file or a folder")
        masks[stem] = path
    return masks


def _listing(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise RuacError(f"{folder}: folder not found; expected images/ and masks/ side by side")
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not paths:
        raise RuacError(f"{folder}: the folder is empty")
    return paths


def _pngs(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() == ".png" and not p.name.startswith("."))


def _stem(line: str) -> str:
    return Path(line).stem if Path(line).suffix.lower() in IMAGE_SUFFIXES else line
