"""Which pictures a fit sees and which it is judged on: whole pictures, chosen by a hash of their ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ruac.base.errors import RuacError
from ruac.data.identity import hash_names, image_names
from ruac.data.sample import MaskDataset, Record, Sample

FEWEST = 4
"""Pictures without which nothing is fitted: one number from three pictures is a guess."""


class Part:
    """Some pictures of a data set, in the order of `positions`; a data set itself."""

    def __init__(self, dataset: MaskDataset, positions: Iterable[int]):
        self.dataset, self.positions, self.name = dataset, list(positions), dataset.name
        self.records: list[Record] = [dataset.records[position] for position in self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Sample:
        return self.dataset[self.positions[index]]

    def record(self) -> dict:
        """What a result says of it: how many pictures, and a hash of their ids, contents and annotations."""
        return {"images": len(self), "sha256": hash_names(image_names(self))}


@dataclass(frozen=True)
class Split:
    """fit, held_out: parts of one data set without a common picture."""

    fit: Part
    held_out: Part


def split_images(dataset: MaskDataset, *, images: int, held_out: float, seed: int) -> Split:
    """`images` pictures of `dataset` (0: all), the share `held_out` of them kept from the fit.

    A picture's place depends on seed and its id alone, so that another number of pictures leaves most where they were.
    Raises `RuacError` for fewer than `FEWEST` pictures to fit, or none to judge where some were asked for.
    """
    order = sorted(range(len(dataset)), key=lambda n: _rank(dataset.records[n].id, seed))
    order = order[: images or None]
    apart = max(1, round(held_out * len(order))) if held_out else 0
    if (left := len(order) - apart) < FEWEST:
        raise RuacError(
            f"{dataset.name}: {left} images to calibrate on and {apart} held out, expected at least {FEWEST} to "
            f"calibrate on; give more images, or held_out=0"
        )
    return Split(Part(dataset, sorted(order[apart:])), Part(dataset, sorted(order[:apart])))


def _rank(name: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
