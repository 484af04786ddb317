"""Objects as pixel values: maps of object numbers in PNG and HDF5 files, and one mask file per object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from ruac.base.errors import RuacError, brief
from ruac.data.domains.picture import Picture, picture_id
from ruac.data.domains.places import pair
from ruac.data.id_masks import read_ids, values_in
from ruac.data.sample import check_pixels, image_size, opened


@dataclass(frozen=True)
class IdMaps:
    """One or several maps of a picture. layers: a prefix of the object ids, and the file. read: gives
    ``int [H, W]``, an object's number or `none` per pixel. size: (H, W) of such a file without reading its pixels."""

    layers: tuple[tuple[str, Path], ...]
    read: Callable[[Path], np.ndarray] = read_ids
    none: int = 0
    size: Callable[[Path], tuple[int, ...]] = image_size

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(path for _, path in self.layers)

    def drawn_on(self) -> tuple[int, int]:
        return self.size(self.files[0])

    def object_ids(self, image: Path, orientation: str = "seen") -> tuple[list[str], int]:
        return [f"{prefix}{v}" for prefix, path in self.layers for v in self._values(self.read(path))], 0

    def masks(self, ids: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
        masks, found = [], []
        for prefix, path in self.layers:
            numbers = self.read(path)
            check_shape(numbers, size, path)
            values = self._values(numbers)
            found += [f"{prefix}{v}" for v in values]
            masks.append(numbers[None] == np.asarray(values, numbers.dtype)[:, None, None])  # [k, H, W]
        if tuple(found) != ids:
            raise RuacError(f"{self.files[0]}: has changed since the data set was opened")
        return np.concatenate(masks)

    def _values(self, numbers: np.ndarray) -> list[int]:
        if self.none == 0 and numbers.min() >= 0 and numbers.max() < 1 << 24:  # no sorting of all pixels
            return values_in(numbers)
        return [int(v) for v in np.unique(numbers) if v != self.none]


@dataclass(frozen=True)
class MaskFiles:
    """One file per object, not 0 inside; they may overlap. An object's id is its file's name."""

    files: tuple[Path, ...]

    def drawn_on(self) -> tuple[int, int]:
        return image_size(self.files[0])

    def object_ids(self, image: Path, orientation: str = "seen") -> tuple[list[str], int]:
        ids = [path.stem for path in self.files if read_binary(path).any()]
        return ids, len(self.files) - len(ids)

    def masks(self, ids: tuple[str, ...], size: tuple[int, int]) -> np.ndarray:
        paths = {path.stem: path for path in self.files}
        masks = np.stack([read_binary(paths[key]) for key in ids])
        check_shape(masks[0], size, paths[ids[0]])
        return masks


def paired_maps(
    masks: Path,
    images: Path,
    split: str,
    *,
    read: Callable[[Path], np.ndarray] = read_ids,
    mask_end: str = ".png",
    image_end: str = "",
    none: int = 0,
) -> Iterator[Picture]:
    """A picture for every map below `masks`, paired as `places.pair` does."""
    for key, mask, image in pair(masks, images, mask_end=mask_end, image_end=image_end):
        yield Picture(picture_id(split, f"{key}.png"), image, IdMaps((("", mask),), read, none))


def read_binary(path: Path) -> np.ndarray:
    """A mask file of any colour mode as ``bool [H, W]``: half of the brightness or more, or any value below 2 but 0."""
    with opened(path) as image:
        # Most mask files have one channel: three would take fifteen times as long.
        one = len(image.getbands()) == 1
        grey = np.asarray(image) if one else np.asarray(image.convert("RGB")).max(axis=2)
    return grey >= (128 if grey.max() > 1 else 1)


def components(path: Path) -> np.ndarray:
    """Connected parts (8 neighbours) of a soft mask file, numbered in reading order."""
    with opened(path) as image:
        return ndimage.label(np.asarray(image.convert("L")) > 25, np.ones((3, 3)))[0]


def read_classes(path: Path) -> np.ndarray:
    """A class map in which 255 means "ignore"."""
    classes = read_ids(path)
    return np.where(classes == 255, 0, classes)


def read_hdf5(path: Path) -> np.ndarray:
    """The data set ``dataset`` of an HDF5 file. Raises `RuacError` for a broken file or without h5py."""
    try:
        import h5py  # only one data set needs it
    except ImportError:
        raise RuacError(f"{path}: reading HDF5 needs h5py: pip install ruac[domains]") from None
    try:
        with h5py.File(path, "r") as file:
            found = file["dataset"]
            if isinstance(file.get("dataset", getlink=True), h5py.ExternalLink) or not isinstance(found, h5py.Dataset):
                raise RuacError(f"{path}: 'dataset' is no data set of this file")
            if found.is_virtual or found.external:
                raise RuacError(f"{path}: the pixels of 'dataset' lie in other files, which are not read")
            if found.ndim != 2 or not np.issubdtype(found.dtype, np.integer):
                raise RuacError(f"{path}: holds {found.dtype} {list(found.shape)}, expected integers [H, W]")
            check_pixels(*found.shape, path)
            numbers = np.asarray(found)
    except RuacError:
        raise
    except Exception as error:  # h5py raises whatever the library's callbacks do
        raise RuacError(f"{path}: cannot be read as HDF5 with a data set named 'dataset': {brief(error)}") from error
    return numbers.astype(np.int32)


def hdf5_size(path: Path) -> tuple[int, ...]:
    return read_hdf5(path).shape


def check_shape(mask: np.ndarray, size: tuple[int, int], path: Path) -> None:
    """Raise `RuacError` unless a mask has the picture's size (H, W)."""
    if mask.shape != tuple(size):
        raise RuacError(
            f"{path}: is {mask.shape[1]}x{mask.shape[0]} pixels, expected {size[1]}x{size[0]} as its image "
            "(width x height)"
        )
