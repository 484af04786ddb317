"""UncCorr (paper, app. N): parts of a mask that its uncertainty speaks against are dropped."""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import nn

PERCENTILE, FLOOR = 95, 0.3
_EIGHT = np.ones((3, 3), int)


def corrected(mask: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """Drop uncertain components of a mask.

    Of its 8-connected components the largest stays (the first of equals); another goes where its mean uncertainty
    exceeds both the 95th percentile of the uncertainty over the whole mask and 0.3. Nothing is ever added, and an
    empty mask stays empty.

    mask: ``bool [H, W]``. uncertainty: ``[H, W]``, total, in [0, 1]. Returns a new ``bool [H, W]``.
    """
    assert mask.shape == uncertainty.shape, (mask.shape, uncertainty.shape)
    labels, count = ndimage.label(mask, _EIGHT)
    if count < 2:
        return mask.copy()
    flat = labels.ravel()
    area = np.bincount(flat)[1:]
    doubt = np.bincount(flat, weights=uncertainty.ravel())[1:] / area
    dropped = doubt > max(np.percentile(uncertainty[mask], PERCENTILE), FLOOR)
    dropped[area.argmax()] = False
    return mask & ~np.concatenate([[False], dropped])[labels]


class UncCorr(nn.Module):
    """`corrected`, as an `AnswerFilter`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("thresholds", torch.tensor([PERCENTILE, FLOOR]))

    def forward(self, masks: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
        return np.stack([corrected(*pair) for pair in zip(masks, uncertainty, strict=True)])
