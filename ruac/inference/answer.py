"""From a posterior to maps at the picture's size: the one place where that is done."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ruac.backbone.outputs import of_token, upsample
from ruac.uncertainty import decompose, probit_logit
from ruac.uncertainty.maps import logit_uncertainty

if TYPE_CHECKING:
    from ruac.inference.model import Prediction


@dataclass(frozen=True, eq=False)
class Maps:
    """What is known of M masks of each of N objects; ``float32 [N, M, H, W]`` throughout.

    probability: of the object, the sigmoid of the upsampled calibrated logit. total: its entropy, in [0, 1]. parts:
    aleatoric and epistemic, where asked for and there is a posterior. own: the posterior's own scores by name.
    """

    probability: Tensor
    total: Tensor
    parts: dict[str, Tensor]
    own: dict[str, Tensor]


def answer_maps(prediction: Prediction, tokens: Tensor, size: tuple[int, int], *, parts: bool = False) -> Maps:
    """Maps of ``tokens [N, M]`` at ``size`` = (H, W).

    Logits are upsampled, not probabilities, as SAM 2 does with its masks: so the probability crosses 1/2 in the same
    cell of the logits' grid as the mask's contour. Parts and own scores are upsampled as they are.
    """
    logits: list[Tensor] = []
    split: dict[str, list[Tensor]] = {}
    own: dict[str, list[Tensor]] = {}
    for token in tokens.unbind(1):
        if prediction.posterior is None:
            logits.append(of_token(prediction.logits, token).float())
            continue
        posterior = prediction.posterior.select(token)
        mean, variance = posterior.calibrated()  # once: it is most of the work
        logits.append(probit_logit(mean, variance))
        if parts:
            for name, part in zip(("aleatoric", "epistemic"), decompose(mean, variance), strict=True):
                split.setdefault(name, []).append(part)
        for name, score in posterior.scores().items():
            own.setdefault(name, []).append(score)
    logit = upsample(torch.cat(logits, dim=1) if len(logits) > 1 else logits[0], size)
    total = logit_uncertainty(logit)
    split, own = ({k: upsample(torch.cat(v, dim=1), size) for k, v in maps.items()} for maps in (split, own))
    # In place: a map of all objects at once is slow to get from the system.
    return Maps(logit.sigmoid_() if not logit.requires_grad else logit.sigmoid(), total, split, own)
