"""Uncertainty-accuracy alignment on adversarial images (sec. 3.4, eq. 5).

Per pixel, with the error ``e = |sigmoid(l) - M|`` in [0, 1], the uncertainty u in [0, 1] and sg the stop-gradient:

- ``L1 = e exp(-sg u) + (1 - e) exp(sg u)``: a function of e alone, of slope ``-2 sinh(u)``, which is never
  positive. Climbing it lowers the error where the model is unsure.
- ``L2 = sg(e) exp(-u) + (1 - sg e) exp(u)``: a function of u alone, smallest at ``u = 0`` where ``e <= 1/2``
  and at ``u = min(1, ln(e / (1 - e)) / 2)`` elsewhere.

One backward pass serves both sides: the model descends what the attackers, behind gradient reversal, climb.

``attacker_only`` (paper): L1. The attackers look for images on which the model is right where it says that it
is unsure, so that uncertainty tells less about errors; raising errors is left to the segmentation loss, and
where u is near 0 L1 asks for almost nothing. Uncertainty gets no gradient. **The logits do**: a loss cannot tell
attackers from decoder weights upstream of l, so that decoder weights in training *descend* L1, which raises
errors where u is high, at the weight this loss is given. Where the logits come from frozen weights, as the mean
logit of the signed posterior over a frozen decoder does, L1 reaches the attackers and nothing else, as meant.

``joint`` (release): L1 + L2. What makes u now descends L2, and learns to be unsure where it is wrong; the
attackers also climb L2, towards images on which the model is wrong and sure, or right and unsure.
"""

from __future__ import annotations

import torch
from torch import Tensor

ALIGNMENT_MODES = ("attacker_only", "joint")


def pixel_error(logits: Tensor, target: Tensor) -> Tensor:
    """``|sigmoid(logits) - target|``, float32, of any matching shapes; target in [0, 1]."""
    return (logits.float().sigmoid() - target.float()).abs()


def alignment_loss(logits: Tensor, target: Tensor, uncertainty: Tensor, *, mode: str = "attacker_only") -> Tensor:
    """Alignment loss per pixel, unreduced, float32 (eq. 5): in [0.368, 2.718], twice that for ``joint``.

    logits, target, uncertainty: the same shape, e.g. ``[N, h, w]``; target in [0, 1], uncertainty in [0, 1]
    (normalised entropy, not nats). mode: ``attacker_only`` or ``joint``, see above.
    """
    if mode not in ALIGNMENT_MODES:
        raise ValueError(f"mode: expected one of {', '.join(ALIGNMENT_MODES)}, found {mode!r}")
    if not logits.shape == target.shape == uncertainty.shape:
        shapes = f"{tuple(logits.shape)}, {tuple(target.shape)}, {tuple(uncertainty.shape)}"
        raise ValueError(f"logits, target, uncertainty: expected one shape, found {shapes}")
    error, uncertainty = pixel_error(logits, target), uncertainty.float()
    loss = _disagreement(error, uncertainty.detach())
    if mode == "joint":
        loss = loss + _disagreement(error.detach(), uncertainty)
    return loss


def _disagreement(error: Tensor, uncertainty: Tensor) -> Tensor:
    return error * torch.exp(-uncertainty) + (1 - error) * torch.exp(uncertainty)


def mean_over_objects(loss: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over pixels of each object, then over objects: ``[N, ...] -> scalar``.

    weight: optional, ``[N]`` >= 0, e.g. 0 for objects to leave out. The result is 0 if all weights are.
    """
    per_object = loss.flatten(1).mean(1)  # [N]
    if weight is None:
        return per_object.mean()
    return (per_object * weight).sum() / weight.sum().clamp_min(torch.finfo(per_object.dtype).tiny)
