"""Procedural scenes: textured, lit, overlapping objects, drawn from a seed and an index."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from zlib import crc32

import numpy as np

from ruac.base.errors import RuacError
from ruac.data.sample import Record, Sample
from ruac.data.synthetic.render import Placed, paint_scene
from ruac.data.synthetic.shapes import random_shape
from ruac.data.synthetic.shifts import SHIFTS


@dataclass(frozen=True)
class _Layout:
    """shapes: kinds to draw from, as often as they are listed. sizes: range of the radius in sides.

    crowd: factor on the configured numbers of objects.
    """

    shapes: tuple[str, ...]
    sizes: tuple[float, float]
    crowd: int = 1


SOLID = ("ellipse", "box", "polygon", "blob")
LAYOUTS = {
    "still_life": _Layout((*SOLID, *SOLID, "star", "ring", "stick", "spoon", "mug", "bottle", "branch"), (0.09, 0.27)),
    "overhead": _Layout(("box", "ell", "ell", "box", "blob"), (0.045, 0.11), crowd=2),
    "cells": _Layout(("ellipse", "blob"), (0.05, 0.12), crowd=2),
}


@dataclass
class SceneConfig:
    """What a scene looks like.

    side: pixels. objects: least and greatest number of objects, doubled where they are small
    (overhead, cells). layout: a key of `LAYOUTS`. min_pixels: visible pixels that every object
    keeps. min_visible: share of an object's pixels that those in front leave visible, at least.
    """

    side: int = 256
    objects: tuple[int, int] = (2, 6)
    layout: str = "still_life"
    min_pixels: int = 64
    min_visible: float = 0.3

    def validate(self) -> None:
        if self.layout not in LAYOUTS:
            raise RuacError(f"layout: {self.layout!r}, expected one of: {', '.join(LAYOUTS)}")
        if len(self.objects) != 2 or not 1 <= self.objects[0] <= self.objects[1]:
            raise RuacError(f"objects: {list(self.objects)}, expected [least, greatest] with 1 <= least <= greatest")
        if self.side < 64:
            raise RuacError(f"side: {self.side}, expected at least 64 pixels")
        if self.min_pixels < 1 or not 0 <= self.min_visible <= 0.9:
            raise RuacError(
                f"min_pixels, min_visible: {self.min_pixels}, {self.min_visible}, expected at least 1, and 0 to 0.9"
            )


class SceneDataset:
    """`count` scenes, generated when read; the same (seed, index, config, shift) gives the same picture.

    shift: a key of `SHIFTS`, or None for the source domain. A shift that has no layout of its own
    shows the source's scenes in another look. Pictures are equal to the bit on one machine; other
    processors may round a few values differently, by one level. Raises `RuacError` for impossible
    values.
    """

    def __init__(self, count: int, *, seed: int, config: SceneConfig | None = None, shift: str | None = None):
        config = config or SceneConfig()
        if shift is not None and shift not in SHIFTS:
            raise RuacError(f"shift: {shift!r}, expected one of: {', '.join(SHIFTS)}")
        if count < 1 or seed < 0:
            raise RuacError(f"count, seed: {count}, {seed}, expected at least 1 and at least 0")
        config.validate()
        if shift is not None and SHIFTS[shift].layout:
            config = replace(config, layout=SHIFTS[shift].layout)
        self.config, self.seed, self.shift = config, seed, shift
        self.name = f"scenes-{shift or 'source'}"
        self.records = [self._record(index) for index in range(count)]

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        number = int(record.id)  # a negative index counts from the end
        rng = np.random.default_rng((self.seed, number, 1))
        image, masks = draw_scene(self.config, len(record.object_ids), rng)
        if self.shift is not None:
            rng = np.random.default_rng((self.seed, number, crc32(self.shift.encode())))
            image, masks = SHIFTS[self.shift](image, masks, rng)
        return Sample(record, image, masks)

    def _record(self, index: int) -> Record:
        """The number of objects has a random stream of its own, so that it is known before anything is drawn."""
        few, many = (LAYOUTS[self.config.layout].crowd * n for n in self.config.objects)
        count = np.random.default_rng((self.seed, index, 0)).integers(few, many + 1)
        path = Path(f"{self.name}-seed{self.seed}") / f"{index:06d}.png"
        return Record(path.stem, path, tuple(str(k) for k in range(1, count + 1)))


def draw_scene(config: SceneConfig, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw a scene of exactly `count` objects.

    Returns ``image uint8 [S, S, 3]`` and the visible parts ``masks bool [K, S, S]``, which do not
    overlap. Raises `RuacError` when there is no room for that many objects.
    """
    placed, owner = _place(config, count, rng)
    masks = owner[None] == np.arange(1, count + 1, dtype=owner.dtype)[:, None, None]  # [K, S, S]
    return paint_scene(placed, config.layout, config.side, rng), masks


def _place(config: SceneConfig, count: int, rng: np.random.Generator) -> tuple[list[Placed], np.ndarray]:
    """Put objects down from back to front; one that would hide too much of another is drawn again, smaller.

    Returns the objects and the number, from 1, of the object seen at each pixel ``[S, S]``.
    """
    side = config.side
    layout = LAYOUTS[config.layout]
    owner = np.zeros((side, side), np.min_scalar_type(count))
    visible = np.zeros(count + 1, np.int64)
    needed = np.zeros(count + 1)
    smallest = 1.6 * np.sqrt(config.min_pixels)
    heights = np.sort(rng.uniform(0.15, 0.92, count))  # what is lower in the picture is nearer
    placed: list[Placed] = []
    for number in range(1, count + 1):
        for attempt in range(600):
            radius = max(smallest, 0.99**attempt * side * rng.uniform(*layout.sizes))
            x, y = side * rng.uniform(0.06, 0.94), side * rng.uniform(0.06, 0.94)
            if config.layout == "still_life" and attempt < 20:
                y = side * heights[number - 1]
                if placed and rng.uniform() < 0.5:  # beside another one, so that things overlap
                    x = np.clip(
                        placed[rng.integers(len(placed))].x + side * rng.normal(0, 0.15), 0.06 * side, 0.94 * side
                    )
            item = Placed(random_shape(rng, layout.shapes, radius), x, y, radius, side)
            front = item.distance < 0
            pixels = np.count_nonzero(front)
            seen = owner[item.crop.rows, item.crop.columns]
            left = visible - np.bincount(seen[front], minlength=count + 1)
            if pixels >= config.min_pixels and (left[1:] >= needed[1:]).all():
                seen[front] = number
                visible[:] = left
                visible[number] = pixels
                needed[number] = max(config.min_pixels, config.min_visible * pixels)
                placed.append(item)
                break
        else:
            raise RuacError(f"objects: no room for {count} objects of {config.min_pixels} pixels at side {side}")
    return placed, owner
