"""SAM 2's optional post-processing, which the evaluation leaves out: small components, and the stability fallback."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from ruac.backbone import Backbone, Decoded, Features
from ruac.backbone.outputs import best_candidate
from ruac.backbone.prompts import Prompts

STABILITY_DELTA = 0.05
"""Half-width of the band of logits that the fallback of SAM 2's demo settings looks at."""

_EIGHT = np.ones((3, 3), int)


def clean_masks(masks: np.ndarray, area: int) -> np.ndarray:
    """Fill holes and drop specks of up to `area` pixels.

    As in SAM 2's image predictor, a hole is any 8-connected component of the background, also one at the frame, both
    kinds are found in the mask as it was, and a mask of specks only becomes empty.

    masks: ``bool [N, H, W]``. Returns the same.
    """
    if not area:
        return masks
    return np.stack([mask ^ _small(mask, area) ^ _small(~mask, area) for mask in masks])


def _small(mask: np.ndarray, area: int) -> np.ndarray:
    labels, count = ndimage.label(mask, _EIGHT)
    small = np.bincount(labels.ravel(), minlength=count + 1) <= area
    small[0] = False
    return small[labels]


class FallbackBackbone(Backbone):
    """A backbone whose single mask gives way to the best candidate where it is unstable.

    stability: least IoU of the mask above ``+STABILITY_DELTA`` with the one above ``-STABILITY_DELTA``; 0 never falls
    back, SAM 2's demo has 0.98. Only token 0 of an answer is replaced, with all that belongs to it.
    """

    def __init__(self, backbone: Backbone):
        super().__init__(backbone.sam, name=backbone.name)
        self.stability = 0.0

    def decode(self, features: Features, prompts: Prompts) -> Decoded:
        decoded = super().decode(features, prompts)
        return decoded if self.stability == 0 else fall_back(decoded, self.stability)


def fall_back(decoded: Decoded, stability: float) -> Decoded:
    """Replace token 0 of each object by its candidate of highest predicted IoU where it is less stable than asked."""
    single = decoded.logits[:, 0].flatten(1)
    inner, outer = ((single > delta).sum(dim=1) for delta in (STABILITY_DELTA, -STABILITY_DELTA))
    score = torch.where(outer > 0, inner / outer.clamp(min=1), 1.0)
    source = torch.where(score >= stability, 0, best_candidate(decoded.iou))  # [N]
    rows = torch.arange(len(source), device=source.device)

    def replaced(x: Tensor) -> Tensor:
        return torch.cat([x[rows, source][:, None], x[:, 1:]], dim=1)

    names = ("logits", "iou", "mask_tokens", "mask_weights")
    return replace(decoded, **{name: replaced(getattr(decoded, name)) for name in names})
