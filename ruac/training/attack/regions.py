"""The regions of a picture that an attack treats apart: objects and the background, their features and amounts."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def style_regions(masks: Tensor, valid: Tensor, variant: str) -> Tensor:
    """The regions with a style of their own, ``[B, R, S, S]`` in {0, 1}: the background, if any, is last.

    masks: ``[B, K, S, S]``; objects that are not `valid` (bool ``[B, K]``) become empty regions. variant: of
    `style.STYLE_VARIANTS`.
    """
    objects = masks * valid[..., None, None]
    union = objects.amax(1, keepdim=True)
    if variant == "global":
        return torch.ones_like(union)
    if variant == "single":
        return union
    if variant == "multi":
        return objects
    return torch.cat([objects, 1 - union], dim=1)


def region_features(embedding: Tensor, regions: Tensor) -> Tensor:
    """Mean of ``embedding [B, D, s, s]`` over every region ``[B, R, S, S]``: ``[B, R, D]``, 0 of an empty one."""
    weight = F.avg_pool2d(regions, regions.shape[-1] // embedding.shape[-1]).flatten(2)  # [B, R, s*s]
    features = weight @ embedding.flatten(2).transpose(1, 2)
    return features / weight.sum(-1, keepdim=True).clamp_min(1e-6)


def spread(values: Tensor, regions: Tensor) -> Tensor:
    """What every pixel gets of ``values [B, R, n]``: ``[B, n, S, S]``, the mean where regions overlap, else 0."""
    weight = regions / regions.sum(1, keepdim=True).clamp_min(1)  # [B, R, S, S]
    return torch.einsum("brhw,brc->bchw", weight, values)
