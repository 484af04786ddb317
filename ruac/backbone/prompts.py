"""Clicks and boxes: the first prompt, and corrections drawn from the error of a mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

BACKGROUND, OBJECT, PADDING = 0, 1, -1
BOX_FIRST, BOX_SECOND = 2, 3


@dataclass
class Prompts:
    """Prompts of N objects in model pixels.

    points: ``float32 [N, P, 2]`` (x, y). labels: ``int64 [N, P]``: 1 object, 0 background,
    -1 padding, 2 and 3 the corners of a box. mask_logits: ``float32 [N, 1, S/4, S/4]``, the
    previous answer, or None.
    """

    points: Tensor
    labels: Tensor
    mask_logits: Tensor | None = None

    def add(self, points: Tensor, labels: Tensor, mask_logits: Tensor | None = None) -> Prompts:
        """The same prompts with one more point each: ``[N, 2]`` and ``[N]``."""
        return Prompts(
            torch.cat([self.points, points[:, None]], dim=1),
            torch.cat([self.labels, labels[:, None]], dim=1),
            self.mask_logits if mask_logits is None else mask_logits,
        )

    def select(self, index: Tensor | slice) -> Prompts:
        mask_logits = None if self.mask_logits is None else self.mask_logits[index]
        return Prompts(self.points[index], self.labels[index], mask_logits)


def random_pixel(region: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One pixel drawn uniformly from each region.

    region: ``bool [N, H, W]``. Returns ``float32 [N, 2]`` (x, y), whole numbers: SAM 2's prompt
    encoder adds the half pixel itself. An empty region gives a pixel of the whole map.
    """
    noise = torch.rand(region.shape, generator=generator, device=region.device)
    index = noise.add_(region).flatten(1).argmax(dim=1)  # noise < 1: region pixels always win
    return _pixels(index, region.shape[-1])


def boxes_of(masks: Tensor, jitter: float = 0.0, generator: torch.Generator | None = None) -> Tensor:
    """Tight boxes ``[N, 2, 2]`` (first and second corner, x and y) of ``bool [N, H, W]`` masks.

    jitter: standard deviation of each coordinate as a share of the box's side, at most 20 px.
    An empty mask gives a box at the origin.
    """
    height, width = masks.shape[-2:]
    ends = []
    for occupied in (_any(masks, 1), _any(masks, 2)):  # columns, then rows
        size = occupied.shape[1]
        steps = torch.arange(size, device=masks.device)
        first = torch.where(occupied, steps, size).amin(dim=1)
        last = torch.where(occupied, steps + 1, 0).amax(dim=1)
        ends.append(torch.stack([torch.minimum(first, last), last], dim=1))
    box = torch.stack(ends, dim=-1).float()  # [N, 2, 2]
    if jitter > 0:
        noise = torch.randn(box.shape, generator=generator, device=box.device)
        sides = (box[:, 1] - box[:, 0])[:, None]  # [N, 1, 2]
        box = box + (noise * jitter * sides).clamp(-20, 20)
    return torch.minimum(box.clamp(min=0), torch.tensor([width, height], device=box.device, dtype=box.dtype))


def first_prompts(
    masks: Tensor, *, box_share: float = 0.5, jitter: float = 0.1, generator: torch.Generator | None = None
) -> Prompts:
    """Training's first prompt: a jittered box with probability `box_share`, else a random click.

    masks: ``bool [N, S, S]`` (method, sec. 5). Boxes take two slots; clicks are padded to match.
    """
    clicks = random_pixel(masks, generator)
    boxes = boxes_of(masks, jitter, generator)
    use_box = torch.rand(len(masks), generator=generator, device=masks.device) < box_share
    padded = torch.stack([clicks, torch.zeros_like(clicks)], dim=1)  # [N, 2, 2]
    points = torch.where(use_box[:, None, None], boxes, padded)
    labels = torch.where(
        use_box[:, None],
        torch.tensor([BOX_FIRST, BOX_SECOND], device=masks.device),
        torch.tensor([OBJECT, PADDING], device=masks.device),
    )
    return Prompts(points, labels)


def random_correction(
    masks: Tensor, predicted: Tensor, *, object_share: float = 0.1, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Training's next click: uniform over the error region, or over the object with `object_share`.

    masks, predicted: ``bool [N, S, S]``. Returns points ``[N, 2]`` and labels ``[N]`` (object if
    the pixel lies on it). Without an error the click falls on the object.
    """
    error = masks ^ predicted
    from_object = torch.rand(len(masks), generator=generator, device=masks.device) < object_share
    from_object |= ~_any(error.flatten(1), 1)
    points = random_pixel(masks ^ (predicted & ~from_object[:, None, None]), generator)
    x, y = points.long().unbind(dim=1)
    labels = masks[torch.arange(len(masks), device=masks.device), y, x].long()
    return points, labels


def central_pixel(region: np.ndarray) -> tuple[int, int]:
    """The (x, y) of the pixel farthest from the border of a ``bool [H, W]`` region (first of ties).

    The image's own edge counts as a border. Raises `ValueError` for an empty region.
    """
    if not region.any():
        raise ValueError("an empty region has no central pixel")
    return _centre(region)[1:]


def central_correction(truth: np.ndarray, predicted: np.ndarray) -> tuple[int, int, int] | None:
    """Evaluation's next click: the centre of the larger error region, missed or excess.

    Larger is the one whose centre lies farther from its border (evaluation, sec. 2), the missed one of
    two alike. Returns (x, y, label), or None where there is no error.
    """
    regions = [(truth & ~predicted, OBJECT), (predicted & ~truth, BACKGROUND)]
    areas = [int(np.count_nonzero(region)) for region, _ in regions]
    best, place = 0.0, None
    for which in sorted((0, 1), key=lambda which: -areas[which]):
        # A disk of radius d holds a square of pixels whose half side is just below d / sqrt(2), so no region of
        # this area has a centre farther than this from its border; most small ones need no distances at all.
        if (math.sqrt(areas[which]) + 1) / math.sqrt(2) < best or not areas[which]:
            continue
        region, label = regions[which]
        distance, x, y = _centre(region)
        if distance > best or (distance == best and label == OBJECT):
            best, place = distance, (x, y, label)
    return place


def _centre(region: np.ndarray) -> tuple[float, int, int]:
    """Largest distance to the border of a region, with its (x, y); only the bounding box is searched."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    top, left = rows[0], columns[0]
    crop = region[top : rows[-1] + 1, left : columns[-1] + 1]
    distance = distance_transform_edt(np.pad(crop, 1))[1:-1, 1:-1]
    y, x = np.unravel_index(np.argmax(distance), crop.shape)
    return float(distance[y, x]), int(x + left), int(y + top)


def _any(masks: Tensor, dim: int) -> Tensor:
    """``masks.any(dim)`` of bool, ten times as fast on a CPU."""
    return masks.view(torch.uint8).amax(dim) > 0


def _pixels(index: Tensor, width: int) -> Tensor:
    return torch.stack([index % width, index // width], dim=1).float()
