"""Local temperature scaling: a temperature per pixel from the picture and the logits (Ding et al., 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ruac.base.errors import RuacError
from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.descent import descend
from ruac.calibration.histogram import LogitHistogram
from ruac.calibration.temperature import fit_temperature, nll

READS = {"both": ("image",), "image": ("image",), "logits": ()}
LEAVES = 4
FURTHEST = math.log(20)  # of a log temperature


@dataclass
class LocalConfig:
    """reads: ``both``, or the ablations ``image`` and ``logits``. kernel, dilation: of every convolution; its reach is
    ``dilation (kernel - 1) / 2`` cells of 4 model pixels. steps: of one picture each, with all its objects. rate: of
    AdamW, at its highest."""

    reads: str = "both"
    kernel: int = 5
    dilation: int = 2
    steps: int = 1500
    rate: float = 1e-2

    def validate(self) -> None:
        if self.reads not in READS:
            raise RuacError(f"reads: {self.reads!r}, expected {' or '.join(READS)}")
        if self.kernel < 1 or self.kernel % 2 == 0 or self.dilation < 1:
            raise RuacError(f"kernel {self.kernel}, dilation {self.dilation}: expected odd, and at least 1")
        if self.kernel > 63:
            raise RuacError(f"kernel {self.kernel}: expected at most 63")
        if self.steps < 1 or self.rate <= 0:
            raise RuacError(f"steps {self.steps}, rate {self.rate}: expected at least 1, and above 0")


class Tree(nn.Module):
    """Log temperatures from single convolutions, mixed in pairs by gates that are convolutions too.

    Four leaves see the logits, two and two are mixed, then both results, and the last gate mixes with a leaf that sees
    the picture. All start at 0.
    """

    def __init__(self, config: LocalConfig):
        super().__init__()
        logits, image = config.reads != "image", config.reads != "logits"
        self.leaves = self._layer(2, LEAVES, config) if logits else None
        self.gates = self._layer(2, LEAVES - 1, config) if logits else None
        self.image_leaf = self._layer(3, 1, config) if image else None
        self.image_gate = self._layer(2, 1, config) if logits and image else None
        self.offset = nn.Parameter(torch.zeros(()))

    @staticmethod
    def _layer(inputs: int, outputs: int, config: LocalConfig) -> nn.Conv2d:
        reach = config.dilation * (config.kernel - 1) // 2
        layer = nn.Conv2d(
            inputs, outputs, config.kernel, padding=reach, dilation=config.dilation, padding_mode="replicate"
        )
        nn.init.normal_(layer.weight, std=1e-2)
        nn.init.zeros_(layer.bias)
        return layer

    def forward(self, logits: Tensor, image: Tensor | None) -> Tensor:
        """Log temperature ``[N, 1, h, w]`` of ``logits [N, 1, h, w]`` over ``image [N or 1, 3, h, w]``."""
        seen = torch.cat([torch.tanh(logits / 4), torch.tanh(logits.abs() / 2)], dim=1)  # bounded, whatever the model
        if self.leaves is not None:
            a, b, c, d = self.leaves(seen).split(1, dim=1)
            first, second, last = self.gates(seen).sigmoid().split(1, dim=1)
            tree = torch.lerp(torch.lerp(a, b, first), torch.lerp(c, d, second), last)
        if self.image_leaf is not None:
            picture = self.image_leaf(image).expand_as(logits)
            tree = picture if self.leaves is None else torch.lerp(tree, picture, self.image_gate(seen).sigmoid())
        return (self.offset + tree).clamp(-FURTHEST, FURTHEST)


class Local(Calibrator):
    """``l / T(x)`` with a `Tree`, which starts at the temperature of temperature scaling.

    After Ding et al.: one binary logit takes the place of their logits of classes, bounded before it is read; what the
    tree gives is a logarithm, so that no temperature is 0 or less.
    """

    kind = settings = "local"
    Config = LocalConfig

    def __init__(self, config: LocalConfig | None = None):
        super().__init__(config)
        self.reads = READS[self.config.reads]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.tree = Tree(self.config)

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        check_answers(answers)
        histogram = LogitHistogram()
        for one in answers:
            histogram.add(one.pixels(), one.truth)
        with torch.no_grad():
            self.tree.offset.fill_(math.log(fit_temperature(histogram.points())))
        generator, device = torch.Generator().manual_seed(seed), self.tree.offset.device
        order: list[int] = []

        def loss(step: int) -> Tensor:
            if not order:
                order.extend(torch.randperm(len(answers), generator=generator).tolist())
            one = answers[order.pop()].to(device)
            return nll(one.pixels(self(one.logits, one.evidence)), one.truth).mean()

        descend(self.tree, loss, steps=self.config.steps, rate=self.config.rate)

    def log_temperature(self, logits: Tensor, evidence: Evidence) -> Tensor:
        """``[N, 1, h, w]``."""
        image = evidence.need(self.kind, "image")[0] if self.reads else None
        return self.tree(logits, image)

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        return logits * (-self.log_temperature(logits, evidence)).exp()
