"""What a user asks of a picture, in SAM 2's own argument names, as prompts in model pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ruac.backbone.prompts import BACKGROUND, BOX_FIRST, BOX_SECOND, OBJECT, PADDING, Prompts
from ruac.base.errors import RuacError


@dataclass(frozen=True)
class UserPrompts:
    """Prompts of N objects of one picture of `size` (H, W) pixels, for a model of input `side`.

    point_coords: ``[P, 2]`` (x, y), with point_labels ``[P]``: 1 object, 0 background, -1 padding. box: ``[4]`` x0, y0,
    x1, y1. mask_input: ``[h, w]`` or ``[1, h, w]`` logits of an earlier answer. Each may have one more dimension in
    front, or be a list, for N objects; objects may have different numbers of points. normalize_coords: coordinates are
    picture pixels; False: shares of the picture's sides. size: (H, W) of it. frame, stride: what of the model's
    pixels it fills, and how many of these a cell of the logits spans, see `Backbone`.
    """

    point_coords: Any
    point_labels: Any
    box: Any
    mask_input: Any
    normalize_coords: bool
    size: tuple[int, int]
    frame: tuple[int, int]
    stride: int

    def groups(self, device: torch.device) -> list[tuple[list[int], Prompts]]:
        """Objects that have the same number of points together, with their places among all N.

        Points of padding are not nothing to SAM 2: groups are why an object's answer does not depend on what else is
        asked. Raises `RuacError` that names the argument, for no prompt, another shape, or a place outside the picture.
        """
        coords = self._objects(self.point_coords, "point_coords", 2)
        labels = self._objects(self.point_labels, "point_labels", 1)
        boxes = self._objects(self.box, "box", 1)
        masks = self._masks()
        counts = {len(each) for each in (coords, labels, boxes, masks) if each}
        if len(counts) > 1:
            given = dict(point_coords=coords, point_labels=labels, box=boxes, mask_input=masks)
            found = ", ".join(f"{name} of {len(each)}" for name, each in given.items() if each)
            raise RuacError(f"predict: {found} objects, expected the same number")
        count = max(counts, default=0)
        none = [None] * count
        asked = zip(coords or none, labels or none, boxes or none, masks or none, strict=True)
        rows = [self._one(*each) for each in asked]
        if not rows or any(not len(kinds) and mask is None for _, kinds, mask in rows):
            raise RuacError("predict: no prompt; expected point_coords with point_labels, a box or a mask_input")
        together: dict[tuple[int, bool], list[int]] = {}
        for index, (_, kinds, mask) in enumerate(rows):
            together.setdefault((len(kinds), mask is not None), []).append(index)
        return [(group, self._prompts([rows[index] for index in group], device)) for group in together.values()]

    def _one(
        self, coords: np.ndarray | None, labels: np.ndarray | None, box: np.ndarray | None, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Coordinates ``[P, 2]`` in picture pixels, labels ``[P]`` and mask of one object; the box comes first."""
        height, width = self.size
        scale = np.array([1, 1] if self.normalize_coords else [width, height])
        places, kinds = np.zeros((0, 2)), np.zeros(0, int)
        if box is not None:
            if box.shape != (4,) or (box[2:] <= box[:2]).any():
                raise RuacError(f"box: {box.tolist()}, expected x0 y0 x1 y1 with x0 < x1 and y0 < y1")
            places, kinds = box.reshape(2, 2) * scale, np.array([BOX_FIRST, BOX_SECOND])
        if coords is not None or labels is not None:
            coords, labels = (np.zeros(0) if each is None else each for each in (coords, labels))
            if coords.ndim != 2 or coords.shape[1] != 2 or labels.shape != (len(coords),):
                found = f"point_coords {coords.shape} and point_labels {labels.shape}"
                raise RuacError(f"{found}: expected [P, 2] and [P]")
            if not np.isin(labels, (OBJECT, BACKGROUND, PADDING)).all():
                expected = "expected 1 (object), 0 (background) or -1 (padding)"
                raise RuacError(f"point_labels: {labels.tolist()}, {expected}; corners of a box go to box")
            places = np.concatenate([places, coords * scale])
            kinds = np.concatenate([kinds, labels.astype(int)])
        seen = places[kinds != PADDING]
        if (seen < 0).any() or (seen > (width, height)).any():
            raise RuacError(f"prompt {seen.tolist()}: outside the {width}x{height} picture")
        return places, kinds, mask

    def _prompts(self, rows: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]], device: torch.device) -> Prompts:
        height, width = self.size
        scale = np.array([self.frame[1] / width, self.frame[0] / height])

        def tensor(arrays: list[np.ndarray], dtype: torch.dtype) -> Tensor:
            return torch.tensor(np.stack(arrays), dtype=dtype, device=device)

        points = tensor([places * scale for places, _, _ in rows], torch.float32)
        labels = tensor([kinds for _, kinds, _ in rows], torch.int64)
        mask = None if rows[0][2] is None else tensor([mask for _, _, mask in rows], torch.float32)[:, None]
        return Prompts(points, labels, mask)

    def _masks(self) -> list[np.ndarray]:
        cells = tuple(length // self.stride for length in self.frame)
        if self.mask_input is None:
            return []
        array = _numbers(self.mask_input, "mask_input")
        if array.ndim == 4 and array.shape[1] == 1:
            array = array[:, 0]
        if array.ndim not in (2, 3) or array.shape[-2:] != cells:
            raise RuacError(f"mask_input: {array.shape}, expected {list(cells)} logits, one for each object")
        return list(array.reshape(-1, *cells))

    @staticmethod
    def _objects(values: Any, name: str, dimensions: int) -> list[np.ndarray]:
        """One array per object, of as many dimensions if it is given right; none where nothing is given."""
        if values is None:
            return []
        if isinstance(values, (list, tuple)) and len({np.shape(_plain(v)) for v in values if _regular(v)}) > 1:
            return [_numbers(each, name) for each in values]  # objects with different numbers of points
        array = _numbers(values, name)
        return list(array) if array.ndim > dimensions else [array]


def _regular(values: Any) -> bool:
    try:
        np.shape(_plain(values))
    except ValueError:  # a ragged list inside a list
        return False
    return True


def _plain(values: Any) -> Any:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else values


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(_plain(values), dtype=float)
    except (TypeError, ValueError, OverflowError) as error:  # the last: a whole number that no float holds
        raise RuacError(f"{name}: {values!r}, expected an array of numbers") from error
    with np.errstate(over="ignore"):
        single = array.astype(np.float32)  # as the model takes it: 1e300 is finite, and infinite there
    if not np.isfinite(single).all():
        raise RuacError(f"{name}: expected finite numbers")
    return array
