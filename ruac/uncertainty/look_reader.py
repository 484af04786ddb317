"""A reader of two answers: what a second look at the same place says beside the first (ours; method, sec. 7).

One answer hardly says where it is wrong; whether it survives a closer look says more than its own entropy. Per pixel
the reader scales the looks' mean logit and shifts it. The shift matters: a factor cannot say that both looks are
probably wrong, and ranks errors worse (docs/results/looks.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.uncertainty.head import WIDEST
from ruac.uncertainty.local_temperature import INPUTS as ANSWER_INPUTS
from ruac.uncertainty.local_temperature import NEIGHBOURHOODS, answer_inputs, neighbourhood

BOTH = (
    "mean",
    "entropy of the mean",
    *(f"entropy of the mean within {side}" for side in NEIGHBOURHOODS),
    "difference",
    *(f"difference within {side}" for side in NEIGHBOURHOODS),
    "overlap of the masks",
    "share of the picture",
    "edge of the image",
)
INPUTS = (
    *(f"first: {name}" for name in ANSWER_INPUTS),
    *(f"second: {name}" for name in ANSWER_INPUTS),
    *BOTH,
)


SURROUNDINGS = 32
"""Side of the map on which surroundings are read, whatever the model's grid, so that reach is a share of the window."""
REACHES = (1, 2, 4)  # dilations of the layers that read them: 15 cells of the map, half a window


@dataclass
class LookReaderConfig:
    """hidden: width of its two layers. context: channels of what it knows of a pixel's surroundings; 0, as in older
    exports, if it reads each pixel alone. look: the one it reads beside the first answer; others it leaves alone."""

    hidden: int = 48
    context: int = field(default=0, metadata={"later": True})
    look: str = "zoom"

    def validate(self) -> None:
        if not 1 <= self.hidden <= WIDEST:
            raise RuacError(f"reader.hidden: {self.hidden}, expected at least 1 and at most {WIDEST}")
        if not 0 <= self.context <= WIDEST:
            raise RuacError(f"reader.context: {self.context}, expected at least 0 and at most {WIDEST}")


@dataclass(frozen=True, eq=False)
class SeenAnswer:
    """An answer on a window's grid. logits: ``[N, 4, h, w]``. iou: ``[N, 4]``. choice: ``[N]``, the returned token."""

    logits: Tensor
    iou: Tensor
    choice: Tensor


class Surroundings(nn.Module):
    """What maps show around each pixel: three layers on a coarse map, which reach half a window."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.narrow = nn.Conv2d(channels, width, 1)
        self.layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=reach, dilation=reach) for reach in REACHES)

    def forward(self, maps: Tensor) -> Tensor:
        """``[N, C, h, w]`` to ``[N, width, h, w]``."""
        seen = F.gelu(self.narrow(F.adaptive_avg_pool2d(maps, SURROUNDINGS)))
        for layer in self.layers:
            seen = seen + F.gelu(layer(seen))
        return F.interpolate(seen, maps.shape[-2:], mode="bilinear", align_corners=False)


class LookReader(nn.Module):
    """Log of a scale, and a shift in logits, from `INPUTS` and their surroundings by two hidden layers per pixel.

    Both are about 0 at first, so that fitting starts at the mean of the looks.
    """

    def __init__(self, config: LookReaderConfig):
        super().__init__()
        self.config = config
        self.surroundings = Surroundings(len(INPUTS), config.context) if config.context else None
        self.network = nn.Sequential(
            nn.Conv2d(len(INPUTS) + config.context, config.hidden, 1),
            nn.GELU(),
            nn.Conv2d(config.hidden, config.hidden, 1),
            nn.GELU(),
            nn.Conv2d(config.hidden, 2, 1),
        )
        nn.init.normal_(self.network[-1].weight, std=1e-3)
        nn.init.zeros_(self.network[-1].bias)
        self.register_buffer("middle", torch.zeros(len(INPUTS), 1, 1))
        self.register_buffer("spread", torch.ones(len(INPUTS), 1, 1))

    def standardise(self, inputs: Tensor) -> None:
        """Take mean and deviation of the maps ``[M, C, h, w]`` that it is fitted to, of any float type."""
        count = inputs.numel() // inputs.shape[1]
        middle = sum(part.double().sum((0, 2, 3)) for part in inputs.split(64)) / count
        squares = sum((part.double() - middle[:, None, None]).square().sum((0, 2, 3)) for part in inputs.split(64))
        self.middle.copy_(middle[:, None, None])
        self.spread.copy_((squares / count).sqrt().clamp(min=1e-3)[:, None, None])

    def forward(self, first: SeenAnswer, second: SeenAnswer, share: Tensor, edges: Tensor) -> Tensor:
        """Log scale and shift ``[N, 2, h, w]``; see `look_inputs`."""
        return self.read(look_inputs(first, second, share, edges))

    def read(self, inputs: Tensor) -> Tensor:
        """The same of `look_inputs` ``[N, C, h, w]``; at most a factor of 20 either way, and 9 logits.

        Inputs beyond what it was fitted to count as 5 deviations from their mean: another domain may have any.
        """
        seen = ((inputs - self.middle) / self.spread).clamp(-5, 5)
        if self.surroundings is not None:
            seen = torch.cat([seen, self.surroundings(seen)], dim=1)
        log_scale, shift = self.network(seen).split(1, dim=1)
        return torch.cat([log_scale.clamp(-3, 3), 3 * shift.clamp(-3, 3)], dim=1)


def reread(logits: Tensor, reading: Tensor) -> Tensor:
    """Logits ``[N, 1, h, w]`` of the looks' mean, with `LookReader.read` of them ``[N, 2, h, w]``."""
    log_scale, shift = reading.split(1, dim=1)
    return logits * log_scale.exp() + shift


def look_inputs(first: SeenAnswer, second: SeenAnswer, share: Tensor, edges: Tensor) -> Tensor:
    """What can be seen of both answers on the window's grid: ``[N, len(INPUTS), h, w]``, in the order of `INPUTS`.

    share: ``[N]``, of the picture that the window shows. edges: ``[N, 1, h, w]``, strength of image edges in [0, 1].
    """
    seen = [answer_inputs(each.logits.float(), each.iou.float(), each.choice) for each in (first, second)]
    one, two = (_own(each).sigmoid() for each in (first, second))
    mean, difference = (one + two) / 2, (one - two).abs()
    entropy = 4 * mean * (1 - mean)
    overlap = torch.minimum(one, two).sum((2, 3), keepdim=True) / torch.maximum(one, two).sum((2, 3), keepdim=True)
    maps = [
        2 * mean - 1,
        entropy,
        *(neighbourhood(entropy, side) for side in NEIGHBOURHOODS),
        difference,
        *(neighbourhood(difference, side) for side in NEIGHBOURHOODS),
        overlap,
        share.log()[:, None, None, None],
        edges,
    ]
    return torch.cat([*seen, *(x.expand_as(mean) for x in maps)], dim=1)


def _own(answer: SeenAnswer) -> Tensor:
    rows = torch.arange(len(answer.choice), device=answer.choice.device)
    return answer.logits.float()[rows, answer.choice][:, None]
