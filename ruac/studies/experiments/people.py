"""Photographs that several people segmented: who drew the same object, and where they disagree about it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import entr

from ruac.base.errors import RuacError
from ruac.data.id_masks import check_size, read_ids
from ruac.data.sample import IMAGE_SUFFIXES, read_image


@dataclass(frozen=True)
class Photograph:
    """image: a file. people: one file of region numbers for each of at least two people."""

    image: Path
    people: tuple[Path, ...]

    def read(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """``uint8 [H, W, 3]`` and ``int32 [H, W]`` per person. Raises `RuacError` for files that do not fit."""
        image, people = read_image(self.image), [read_ids(path) for path in self.people]
        for ids, path in zip(people, self.people, strict=True):
            check_size(ids, image.shape[:2], path, self.image)
        return image, people


@dataclass(frozen=True)
class Disputed:
    """N regions of one person and what the others say. masks: ``bool [N, H, W]``. frequency: ``float32 [N, H, W]``,
    the share of those others who drew the object that have the pixel inside. numbers: of the regions, ``[N]``."""

    masks: np.ndarray
    frequency: np.ndarray
    numbers: np.ndarray


def open_photographs(folder: str | Path) -> list[Photograph]:
    """Photographs by name. Raises `RuacError` if the folder has none, or one that fewer than two people segmented."""
    folder = Path(folder)
    if not (folder / "images").is_dir() or not (folder / "regions").is_dir():
        raise RuacError(f"{folder}: expected the folders images/ and regions/")
    people: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((folder / "regions").glob("*_*.png")):
        people[path.stem.rpartition("_")[0]].append(path)
    images = sorted(path for path in (folder / "images").iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise RuacError(f"{folder / 'images'}: no image, expected {', '.join(IMAGE_SUFFIXES)}")
    for path in images:
        if len(people[path.stem]) < 2:
            raise RuacError(f"{path}: expected two or more files regions/{path.stem}_K.png")
    return [Photograph(path, tuple(people[path.stem])) for path in images]


def disputed_objects(
    people: list[np.ndarray], person: int, *, match: float, least: int, areas: tuple[float, float]
) -> Disputed:
    """The regions of `person` that enough others drew too, with the others' foreground frequency.

    people: region numbers ``int [H, W]`` of everybody, 0 unlabelled. Of each other person, the region with the
    largest IoU stands for the object if that IoU is at least `match`; who has none did not draw the object and has no
    vote. least: others who have to have drawn it. areas: smallest and largest number of pixels of a prompted region.
    """
    ids = people[person]
    numbers, pixels = np.unique(ids[ids > 0], return_counts=True)
    numbers = numbers[(pixels >= areas[0]) & (pixels <= areas[1])]
    votes = np.zeros((len(numbers), *ids.shape), np.float32)
    voters = np.zeros(len(numbers), int)
    for other in (other for index, other in enumerate(people) if index != person):
        iou, number = _best_regions(ids, numbers, other)
        drawn = iou >= match
        votes[drawn] += other[None] == number[drawn, None, None]
        voters += drawn
    kept = voters >= least
    numbers = numbers[kept]
    return Disputed(ids[None] == numbers[:, None, None], votes[kept] / voters[kept, None, None], numbers)


def _best_regions(ids: np.ndarray, numbers: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest IoU of region ``numbers[n]`` of `ids` with a labelled region of `other`, and that region's number."""
    shape = (ids.max() + 1, other.max() + 1)
    shared = np.bincount((ids * shape[1] + other).ravel(), minlength=shape[0] * shape[1]).reshape(shape)
    union = shared.sum(axis=1, keepdims=True) + shared.sum(axis=0) - shared
    iou = shared[numbers] / np.maximum(union[numbers], 1)
    iou[:, 0] = 0  # unlabelled
    return iou.max(axis=1, initial=0), iou.argmax(axis=1)


def disagreement(frequency: np.ndarray) -> np.ndarray:
    """Binary entropy of the foreground frequency, in [0, 1]: 0 where all agree, 1 where half of them say object."""
    return (entr(frequency) + entr(1 - frequency)) / np.log(2)
