"""Windows of a picture: what is cut out, where clicks and maps go, and back again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.backbone.outputs import upsample
from ruac.backbone.prompts import PADDING, Prompts
from ruac.inference.flips import flip_prompts


@dataclass(frozen=True)
class View:
    """Pixels ``[top, bottom) x [left, right)`` of a picture of `size` (H, W), seen as the model's whole square.

    flip: seen in a mirror. Coordinates of prompts are SAM 2's: the picture's square holds all of the picture
    (of a model that pads, its `frame`), and the window's square all of the window.
    """

    size: tuple[int, int]
    left: int
    top: int
    right: int
    bottom: int
    flip: bool = False

    @classmethod
    def whole(cls, size: tuple[int, int], *, flip: bool = False) -> View:
        """All of a picture of `size` (H, W)."""
        return cls(size, 0, 0, size[1], size[0], flip)

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def share(self) -> float:
        """Of the picture's area."""
        return (self.bottom - self.top) * (self.right - self.left) / (self.size[0] * self.size[1])

    def cut(self, image: np.ndarray) -> np.ndarray:
        """The window's pixels of ``uint8 [H, W, 3]``."""
        pixels = image[self.window]
        return pixels[:, ::-1] if self.flip else pixels

    def ask(self, prompts: Prompts, frame: tuple[int, int], seen: tuple[int, int], cells: tuple[int, int]) -> Prompts:
        """The same prompts on the window; all of their points must lie in it. Seen whole, nothing changes a bit.

        frame, seen: rows and columns of model pixels that the picture and the window fill. cells: of the mask prompt.
        """
        height, width = self.size
        rows, columns = (self.bottom - self.top) * frame[0], (self.right - self.left) * frame[1]
        stretch = torch.tensor([width * seen[1] / columns, height * seen[0] / rows])
        start = torch.tensor([self.left * frame[1] / width, self.top * frame[0] / height])
        stretch, start = stretch.to(prompts.points), start.to(prompts.points)
        edges = torch.tensor(seen[::-1]).to(prompts.points)
        moved = torch.minimum(((prompts.points - start) * stretch).clamp(min=0), edges)
        points = torch.where((prompts.labels == PADDING)[..., None], prompts.points, moved)
        mask = None if prompts.mask_logits is None else self.resample(prompts.mask_logits, cells)
        asked = Prompts(points, prompts.labels, mask)
        return flip_prompts(asked, "horizontal", seen) if self.flip else asked

    def resample(self, maps: Tensor, cells: tuple[int, int] | None = None) -> Tensor:
        """``[..., h, w]`` over the whole picture to the window (``[..., *cells]``), bilinear; no flip.

        Two small matrices do it, which for the whole picture are the identity, so that nothing is rounded.
        """
        down, across = cells or maps.shape[-2:]
        rows = _interpolation(maps.shape[-2], down, self.top / self.size[0], self.bottom / self.size[0])
        columns = _interpolation(maps.shape[-1], across, self.left / self.size[1], self.right / self.size[1])
        return rows.to(maps) @ maps @ columns.to(maps).T

    def place(self, maps: Tensor) -> Tensor:
        """Maps ``[N, M, h, w]`` of the window's square in the picture's pixels: the window's size, turned back."""
        maps = maps.flip(-1) if self.flip else maps
        return upsample(maps, (self.bottom - self.top, self.right - self.left))

    def grown(self, edge: float) -> View:
        """The window with `edge` of its sides more on each side, as far as the picture goes."""
        down, across = (math.ceil(edge * side) for side in (self.bottom - self.top, self.right - self.left))
        left, top = max(0, self.left - across), max(0, self.top - down)
        right, bottom = min(self.size[1], self.right + across), min(self.size[0], self.bottom + down)
        return View(self.size, left, top, right, bottom, self.flip)

    def spread(self, maps: Tensor, grown: View) -> Tensor:
        """Maps ``[N, M, bottom - top, right - left]`` of the window's pixels, going on as at its border in `grown`."""
        sides = (self.left - grown.left, grown.right - self.right, self.top - grown.top, grown.bottom - self.bottom)
        return F.pad(maps, sides, mode="replicate")

    def weight(self, edge: float) -> Tensor:
        """Of the pixels of `grown`: 1 in the window, falling to 0 over the share `edge` of its sides beyond it."""
        grown = self.grown(edge)
        rows = _fade(grown.top - self.top, grown.bottom - self.top, self.bottom - self.top, edge)
        columns = _fade(grown.left - self.left, grown.right - self.left, self.right - self.left, edge)
        return rows[:, None] * columns


def around(
    points: np.ndarray, mask: np.ndarray, *, margin: float, pad: float, largest: float, flip: bool = False
) -> View | None:
    """A square window around a mask and the points that asked for it, or None where it would be no closer look.

    points: ``[P, 2]`` (x, y) in picture pixels. mask: ``bool [H, W]``, may be empty. The square's side is `margin`
    times the larger extent of both plus `pad` times the picture's (geometric mean) side, whole pixels, moved and cut
    so that it lies in the picture. largest: of the window's side as a share of the picture's, by area.
    """
    size = mask.shape
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    spans = []
    for places, seen in ((points[:, 0], columns), (points[:, 1], rows)):
        ends = [*places, *places + 1, *(() if not len(seen) else (seen[0], seen[-1] + 1))]
        spans.append((min(ends), max(ends)))
    side = margin * max(last - first for first, last in spans) + pad * math.sqrt(size[0] * size[1])
    window = []
    for (first, last), whole in zip(spans, size[::-1], strict=True):
        extent = min(max(1, math.ceil(side)), whole)
        start = min(max(0, round((first + last - extent) / 2)), whole - extent)
        window.append((start, start + extent))
    (left, right), (top, bottom) = window
    view = View(size, left, top, right, bottom, flip)
    return view if view.share <= largest**2 else None


def _interpolation(cells: int, places: int, start: float, stop: float) -> Tensor:
    """``[places, cells]``: row i mixes the two cells next to place i of `places` between shares start and stop."""
    at = (start + (np.arange(places) + 0.5) / places * (stop - start)) * cells - 0.5
    at = np.clip(np.round(at, 9), 0, cells - 1)  # whole numbers where they are meant
    low = np.minimum(np.floor(at).astype(int), max(cells - 2, 0))
    matrix = np.zeros((places, cells))
    matrix[np.arange(places), low] = 1 - (at - low)
    matrix[np.arange(places), np.minimum(low + 1, cells - 1)] += at - low
    return torch.from_numpy(matrix)


def _fade(first: int, last: int, length: int, edge: float) -> Tensor:
    """Of the pixels from `first` to `last`, counted from a window's start: 1 within its `length`, a cosine beyond."""
    place = torch.arange(first, last) + 0.5
    beyond = torch.maximum(-place, place - length).clamp(min=0)
    return 0.5 + 0.5 * torch.cos(math.pi * (beyond / max(edge * length, 0.5)).clamp(max=1))
