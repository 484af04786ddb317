"""A logit scale that reads the answer: local temperature scaling over the mask, its candidates and its size (ours).

The variance of an inner product says how sure each factor is. Whether a mask as a whole is right shows elsewhere: in
how much of it is undecided, how far the decoder's candidates agree, how large it is, which IoU SAM 2 predicts.
One positive factor per pixel, of mean and standard deviation of the logit, reads that and moves no mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded

GRID = 64  # side of the map on which neighbourhoods are averaged, whatever the model's
NEIGHBOURHOODS = (0.08, 0.24)  # sides of the squares, as shares of the map's
# Mean and deviation of each input in the band of source objects, with nano, rounded. All are probabilities, tanh of
# logits or the log of a share, so that another backbone's differ little.
INPUTS = {
    "logit": (-0.1, 0.55),
    "confidence": (0.6, 0.33),
    "entropy": (0.5, 0.38),
    **{f"entropy within {side}": (0.5, 0.32) for side in NEIGHBOURHOODS},
    "entropy of the mask": (0.75, 0.23),
    "share of the map": (-1.5, 1.0),
    "single mask": (-0.1, 0.5),
    "highest candidate": (0.0, 0.5),
    "lowest candidate": (-0.3, 0.5),
    "disagreement": (0.16, 0.18),
    "predicted IoU": (0.7, 0.22),
}
SHARED = ("entropy of the mask", "share of the map", "predicted IoU")  # by all pixels of an answer


class LocalTemperature(nn.Module):
    """Log of the scale, from `INPUTS` by two hidden layers per pixel; 0 at first, so that training starts at scale 1.

    hidden: their width.
    """

    def __init__(self, hidden: int):
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(len(INPUTS), hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.GELU(),
            nn.Conv2d(hidden, 1, 1),
        )
        nn.init.normal_(self.network[-1].weight, std=1e-3)
        nn.init.zeros_(self.network[-1].bias)
        middle, spread = torch.tensor(list(INPUTS.values())).unbind(-1)
        self.register_buffer("middle", middle[:, None, None], persistent=False)
        self.register_buffer("spread", spread[:, None, None], persistent=False)

    def forward(self, logits: Tensor, iou: Tensor, index: Tensor) -> Tensor:
        """Log scale ``[N, 1, h, w]`` of token ``index[n]`` among those of ``logits [N, 4, h, w]``, ``iou [N, 4]``."""
        if not _compiles(logits):
            return self.log_scale(answer_inputs(logits, iou, index))
        from ruac.uncertainty.compiled_temperature import layers_of, log_scale, seen_answer  # numba imports slowly

        own, entropy, shared = seen_answer(logits, index, iou)
        near = [neighbourhood(entropy, side) for side in NEIGHBOURHOODS]
        return log_scale(layers_of(self), logits, own, near, shared)

    def log_scale(self, inputs: Tensor) -> Tensor:
        """The same of `answer_inputs` ``[N, C, h, w]``."""
        return self.network((inputs - self.middle) / self.spread)


class OldNames:
    """Of a head with a local temperature: weights that were saved while it was called context still load."""

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for key in [key for key in state_dict if key.startswith(f"{prefix}context.")]:
            new = key.removeprefix(f"{prefix}context.")
            state_dict[f"{prefix}local_temperature.{new}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *rest)


@dataclass(frozen=True, eq=False)
class LocalScale:
    """The scale of one answer, computed when asked for, so that tokens nobody returns cost nothing.

    index: tokens it is wanted for, ``[N, K]``.
    """

    network: LocalTemperature
    logits: Tensor
    iou: Tensor
    index: Tensor

    @classmethod
    def of(cls, network: LocalTemperature, decoded: Decoded, logits: Tensor) -> LocalScale:
        """Of all four tokens of a decoder pass, whose masks are the signs of `logits`."""
        tokens = torch.arange(logits.shape[1], device=logits.device)
        # shape[0], also below: of a graph for any number of objects len() would make one for this number.
        return cls(network, logits, decoded.iou.float(), tokens.expand(logits.shape[0], -1))

    def select(self, index: Tensor) -> LocalScale:
        """Of token ``index[n]`` of object n among those of this one."""
        return replace(self, index=self.index.gather(1, index[:, None]))

    def __call__(self) -> Tensor:
        """Positive, ``[N, K, h, w]``."""
        with torch.autocast(self.logits.device.type, enabled=False):
            columns = [self.network(self.logits, self.iou, column) for column in self.index.unbind(1)]
            return torch.cat(columns, dim=1).exp()


def scaled(mean: Tensor, variance: Tensor, scale: Tensor | None, local: LocalScale | None) -> tuple[Tensor, Tensor]:
    """Mean and variance of logits times the scales that there are."""
    for factor in (scale, None if local is None else local()):
        if factor is not None:
            mean, variance = factor * mean, factor.square() * variance
    return mean, variance


def answer_inputs(logits: Tensor, iou: Tensor, index: Tensor) -> Tensor:
    """What can be seen of token ``index[n]``'s mask: ``[N, len(INPUTS), h, w]``, in the order of `INPUTS`."""
    rows = torch.arange(index.shape[0], device=index.device)
    own = logits[rows, index][:, None]  # [N, 1, h, w]
    probability = own.sigmoid()
    entropy = 4 * probability * (1 - probability)  # in [0, 1], a cheap stand-in of the same shape
    share = probability.mean((2, 3), keepdim=True)
    candidates = logits[:, 1:]
    maps = [
        torch.tanh(own / 4),
        torch.tanh(own.abs() / 2),
        entropy,
        *(neighbourhood(entropy, side) for side in NEIGHBOURHOODS),
        # Of what the mask covers, how much is undecided: relative to its size, and bounded.
        (entropy.mean((2, 3), keepdim=True) / (share + 0.01)).tanh(),
        (share + 1e-4).log(),
        torch.tanh(logits[:, :1] / 4),
        torch.tanh(candidates.amax(1, keepdim=True) / 4),
        torch.tanh(candidates.amin(1, keepdim=True) / 4),
        2 * _deviation(candidates.sigmoid()),
        iou[rows, index][:, None, None, None],
    ]
    return torch.cat([x.expand_as(own) for x in maps], dim=1)


def _compiles(maps: Tensor) -> bool:
    """Whether a CPU may take its compiled way, which has no slopes."""
    return maps.device.type == "cpu" and not torch.is_grad_enabled() and maps.numel() > 0


def neighbourhood(maps: Tensor, share: float) -> Tensor:
    """Mean over the square of side ``share`` of the map around each pixel, of what of it lies inside."""
    size = maps.shape[-2:]
    coarse = F.adaptive_avg_pool2d(maps, GRID) if min(size) > GRID else maps
    side = 2 * math.floor(share * coarse.shape[-1] / 2) + 1
    if _compiles(coarse):
        from ruac.uncertainty.compiled_temperature import box_means

        coarse = box_means(coarse.float(), side)
    else:
        for window in ((side, 1), (1, side)):  # the sides one after the other: 2 n instead of n^2 numbers per mean
            padding = window[0] // 2, window[1] // 2
            coarse = F.avg_pool2d(coarse, window, stride=1, padding=padding, count_include_pad=False)
    return coarse if coarse.shape[-2:] == size else F.interpolate(coarse, size, mode="bilinear", align_corners=False)


def _deviation(values: Tensor) -> Tensor:
    """`Tensor.std` over dimension 1, kept, in a tenth of its time; without slope where all values are one."""
    squares = (values - values.mean(1, keepdim=True)).square().sum(1, keepdim=True) / (values.shape[1] - 1)
    return squares.clamp_min(torch.finfo(values.dtype).tiny).sqrt()
