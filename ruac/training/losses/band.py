"""The object band at the resolution of the logits: where reliability is measured."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MINIMUM = 1.0  # cells of stride 4, the nearest to 3 pixels


def loss_band(targets: Tensor) -> Tensor:
    """The object and all within ``max(3 px, sqrt(area) / 4)`` of it; targets ``[N, h, w]`` in [0, 1], result bool.

    `metrics.object_band` in cells of the logits, with octagons for disks, all objects at once on their device.
    A target without an object has an empty band.
    """
    most = targets.amax((1, 2), keepdim=True).clamp(1e-6, 0.5)  # an object may be smaller than a cell
    band = (targets >= most).float()[:, None]
    radius = band.sum((2, 3), keepdim=True).sqrt().div(4).clamp_min(MINIMUM).round()  # [N, 1, 1, 1]
    for step in range(int(radius.max()) if len(radius) else 0):
        grown = _square(band) if step % 2 else _diamond(band)  # in turn: an octagon
        band = torch.where(step < radius, grown, band)
    return band[:, 0] > 0


def _square(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def _diamond(x: Tensor) -> Tensor:
    across = F.max_pool2d(x, (1, 3), stride=1, padding=(0, 1))
    return torch.maximum(across, F.max_pool2d(x, (3, 1), stride=1, padding=(1, 0)))
