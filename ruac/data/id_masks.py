"""Mask files in which the value of a pixel is the number of its object."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy import ndimage

from ruac.base.errors import RuacError
from ruac.data.sample import opened

MODES = ("1", "L", "P", "I", "I;16", "I;16B", "I;16L")


def read_ids(path: Path) -> np.ndarray:
    """Read a one-channel PNG as ``int32 [H, W]``: grey value or palette index, 0 = background.

    Raises `RuacError` for a missing or damaged file and for colour pictures.
    """
    with opened(path) as image:
        if image.mode not in MODES:
            raise RuacError(
                f"{path}: mask has mode {image.mode}, expected one channel: "
                "8 or 16 bit object numbers, a palette, or 0/255"
            )
        ids = np.asarray(image)
    if ids.size and not (ids.min() >= 0 and ids.max() < 1 << 16):  # 32 bit: counting them would cost gigabytes
        raise RuacError(f"{path}: has values from {ids.min()} to {ids.max()}, expected object numbers of 16 bit")
    return ids.astype(np.int32)


def read_objects(path: Path) -> np.ndarray:
    """`read_ids` of a mask file as annotation tools export them.

    Value 255 of an 8-bit file is void where other values occur (Pascal VOC): unless 254 occurs too, which says that
    objects were counted up to there. A grey mask of one object whose edge was smoothed, or that once was a JPEG, is
    cut at half.
    """
    ids = read_ids(path)
    if ids.max(initial=0) not in range(250, 256):
        return ids
    counts = np.bincount(ids.ravel(), minlength=256)
    between = np.flatnonzero(counts[5:250]) + 5
    if len(between) > 2 and np.ptp(between) > 100 and _is_edge(ids, (ids >= 5) & (ids < 250)):
        return np.where(ids >= 128, 255, 0).astype(ids.dtype)
    if counts[255] and counts[1:254].any() and not counts[254]:
        return np.where(ids == 255, 0, ids)
    return ids


def _is_edge(ids: np.ndarray, where: np.ndarray) -> bool:
    """Whether values only pass through: an object has a pixel somewhere whose neighbours are all of its own."""
    flat = ndimage.maximum_filter(ids, 3) == ndimage.minimum_filter(ids, 3)
    return not (flat & where).any()


def values_in(ids: np.ndarray) -> list[int]:
    """The numbers of the objects that occur, ascending."""
    return (np.flatnonzero(np.bincount(ids.ravel())[1:]) + 1).tolist()  # faster than sorting; a PNG has 16 bits at most


def values_in_files(paths: Iterable[Path]) -> list[list[int]]:
    """`values_in` of every file, read in parallel: decoding a PNG leaves the interpreter free."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda path: values_in(read_objects(path)), paths))


def split_ids(ids: np.ndarray, values: Iterable[int]) -> np.ndarray:
    """One mask per value: ``[H, W] -> bool [K, H, W]``."""
    return ids[None] == np.asarray(list(values), ids.dtype)[:, None, None]


def check_size(mask: np.ndarray, size: tuple[int, ...], mask_path: Path, image_path: Path) -> None:
    """Raise `RuacError` unless a mask ``[H, W]`` covers its picture of `size` (H, W) exactly."""
    if mask.shape != tuple(size):
        raise RuacError(
            f"{mask_path}: is {mask.shape[1]}x{mask.shape[0]} pixels, "
            f"expected {size[1]}x{size[0]} like {image_path.name} (width x height)"
        )
