"""SAM 2's segmentation loss for one decoding step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.losses import binary_focal_loss_with_logits
from torch import Tensor


@dataclass
class SegmentationConfig:
    """Weights of the terms (method, sec. 4).

    unanimous: share of the mask loss that goes to all three candidates where the prompt is not
    ambiguous. 0 is SAM 2's recipe, which asks for a single mask there; an evaluation that chooses
    among candidates after every click needs candidates that agree.
    """

    focal: float = 20.0
    dice: float = 1.0
    iou: float = 1.0
    object_score: float = 1.0
    unanimous: float = 0.0


def soft_targets(masks: Tensor, size: int) -> Tensor:
    """Masks ``[N, S, S]`` as the covered share of each cell of a ``size x size`` grid, ``[N, size, size]``.

    Supervising stride-4 logits with covered shares keeps the boundary where it is after bilinear
    upsampling, and costs a sixteenth of supervising at full resolution.
    """
    masks = masks.float()
    if masks.shape[-1] == size:
        return masks
    return F.adaptive_avg_pool2d(masks[:, None], size)[:, 0]


def segmentation_loss(
    logits: Tensor,
    iou: Tensor,
    object_score: Tensor,
    targets: Tensor,
    config: SegmentationConfig,
    *,
    unambiguous: Tensor | None = None,
) -> dict[str, Tensor]:
    """Weighted terms ``[N]`` of one step: focal, dice, iou, object_score.

    logits: ``[N, 4, h, w]``, token 0 the single mask, 1 to 3 the candidates. iou: ``[N, 4]``.
    object_score: ``[N, 1]``. targets: ``[N, h, w]`` in [0, 1]. Of the candidates the one with the
    lowest focal + dice gets the gradient; the single mask gets its own; every IoU prediction is
    drawn to the true IoU of its mask. unambiguous: ``bool [N]``, where `config.unanimous` applies.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, iou = logits.float(), iou.float()
        target = targets[:, None].expand_as(logits)
        focal = binary_focal_loss_with_logits(logits, target, alpha=0.25, gamma=2.0, reduction="none").mean(dim=(2, 3))
        probability = logits.sigmoid()
        overlap = (probability * target).sum(dim=(2, 3))
        dice = 1 - (2 * overlap + 1) / ((probability + target).sum(dim=(2, 3)) + 1)
        true_iou = _iou(logits.detach() > 0, target > 0.5)
        best = (config.focal * focal + config.dice * dice)[:, 1:].argmin(dim=1, keepdim=True) + 1  # [N, 1]
        share = torch.zeros_like(focal[:, 0]) if unambiguous is None else config.unanimous * unambiguous.float()

        def candidates(term: Tensor) -> Tensor:
            return (1 - share) * term.gather(1, best)[:, 0] + share * term[:, 1:].mean(dim=1)

        present = (targets.flatten(1).amax(dim=1) > 0).float()
        score = F.binary_cross_entropy_with_logits(object_score[:, 0].float(), present, reduction="none")
        return {
            "focal": config.focal * (candidates(focal) + focal[:, 0]) * present,
            "dice": config.dice * (candidates(dice) + dice[:, 0]) * present,
            "iou": config.iou * (iou - true_iou).abs().sum(dim=1) * present,
            "object_score": config.object_score * score,
        }


def _iou(predicted: Tensor, truth: Tensor) -> Tensor:
    union = (predicted | truth).sum(dim=(2, 3))
    return (predicted & truth).sum(dim=(2, 3)) / union.clamp(min=1)
