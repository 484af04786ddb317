"""Pictures of training for TensorBoard."""

from __future__ import annotations

import torch
from torch import Tensor

from ruac.data.augment import MEAN, STD
from ruac.uncertainty import total_uncertainty


def attack_panel(clean: Tensor, attacked: Tensor, truth: Tensor, logit: Tensor) -> Tensor:
    """Side by side: clean, attacked, mask over the attacked image, error, uncertainty.

    clean, attacked: ``[3, S, S]`` normalised. truth: ``bool [S, S]``. logit: ``[S, S]`` calibrated.
    Returns ``[3, S, 5 S]`` in [0, 1].
    """
    mean, std = MEAN.to(clean.device), STD.to(clean.device)
    pictures = [(picture * std + mean).clamp(0, 1) for picture in (clean, attacked.detach())]
    mask = logit > 0
    tint = torch.tensor([0.1, 0.5, 1.0], device=clean.device).view(3, 1, 1)
    overlaid = torch.where(mask, 0.5 * pictures[1] + 0.5 * tint, pictures[1])
    error = (mask != truth).float().expand(3, -1, -1)
    uncertainty = total_uncertainty(logit, torch.zeros_like(logit)).expand(3, -1, -1)
    return torch.cat([*pictures, overlaid, error, uncertainty], dim=2)
