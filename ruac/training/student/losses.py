"""Loss terms of a student, and how the unlabelled part is weighed over training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.data.classes import IGNORE


def label_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of ``[B, K, S, S]`` with ``int64 [B, S, S]``, the mean over known pixels; 0 without any."""
    known = (labels != IGNORE).sum().clamp(min=1)
    return F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction="sum") / known


def agreement_loss(logits: Tensor, target: Tensor, confidence: Tensor, threshold: float) -> Tensor:
    """Cross-entropy with labels that a model gave itself, where it was sure enough (FixMatch).

    logits: ``[B, K, S, S]``. target, confidence: ``[B, S, S]``. The mean is over all pixels: where few are sure the
    term is small.
    """
    own = F.cross_entropy(logits, target, reduction="none")
    return (own * (confidence >= threshold)).mean()


def decayed_share(epoch: float, *, start: float, end: float, share: float, decay: float) -> float:
    """lambda(t) of ConformalSAM eq. 5: `share` at epoch `start`, falling by e^-decay until `end`.

    The paper says exponential decay and gives no constants; these are ours.
    """
    return share * math.exp(-decay * (epoch - start) / max(1e-9, end - start))


def channel_dropout(maps: list[Tensor], rate: float) -> list[Tensor]:
    """Factors ``[B, C, 1, 1]`` of each map: whole channels become 0, the others 1 / (1 - rate) (UniMatch)."""
    kept = [torch.rand(m.shape[:2], device=m.device) >= rate for m in maps]
    return [(keep.float() / (1 - rate))[..., None, None] for keep in kept]


def complementary_dropout(maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Factors of two views, ``[B, C, 1, 1]`` per map: each channel is doubled in one view and 0 in the other.

    In half of the pictures (drawn, rounded down) both views keep all channels as they are (UniMatch V2, sec. 3).
    """
    count = len(maps[0])
    whole = torch.zeros(count, dtype=torch.bool, device=maps[0].device)
    whole[torch.randperm(count, device=maps[0].device)[: count // 2]] = True
    first = [2.0 * (torch.rand(m.shape[:2], device=m.device) < 0.5).float() for m in maps]
    first = [torch.where(whole[:, None], 1.0, factor) for factor in first]
    return [f[..., None, None] for f in first], [(2.0 - f)[..., None, None] for f in first]
