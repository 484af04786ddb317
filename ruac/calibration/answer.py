"""A temperature per pixel from the answer: the mask, its candidates and the predicted IoU, not the picture (ours).

Training sees a dozen objects a step, and what the scale reads differs between objects more than within them. With
the model frozen its inputs can be drawn once, from thousands of objects, and fitted in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.descent import fit_scale
from ruac.uncertainty.local_temperature import LocalTemperature, answer_inputs


@dataclass
class AnswerConfig:
    """hidden: width of the two layers. pixels: kept of all pictures together, the same number of each. steps, batch,
    rate: of AdamW."""

    hidden: int = 32
    pixels: int = 400_000
    steps: int = 1500
    batch: int = 4096
    rate: float = 5e-3

    def validate(self) -> None:
        for name in ("hidden", "pixels", "steps", "batch"):
            if getattr(self, name) < 1:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 1")
        if self.hidden > 4096:  # what a file claims before its weights are looked at
            raise RuacError(f"hidden: {self.hidden}, expected at most 4096")
        if self.rate <= 0:
            raise RuacError(f"rate: {self.rate}, expected above 0")


class Answer(Calibrator):
    """``l s(x)`` with the scale s of `LocalTemperature`, 1 / T in other words."""

    kind = settings = "answer"
    Config = AnswerConfig
    reads = ("tokens", "iou", "choice")

    def __init__(self, config: AnswerConfig | None = None):
        super().__init__(config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = LocalTemperature(self.config.hidden)

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        check_answers(answers)
        generator, device = torch.Generator().manual_seed(seed), next(self.network.parameters()).device
        share = -(-self.config.pixels // len(answers))
        kept = []
        for one in answers:
            inputs = self._inputs(one.evidence)
            some = torch.randperm(len(one.truth), generator=generator)[:share]
            n, y, x = (axis[some] for axis in one.nearest())
            kept.append((inputs[n, :, y, x], one.pixels()[some], one.truth[some]))
        inputs, logits, truth = (torch.cat(column).to(device) for column in zip(*kept, strict=True))
        settings = {"steps": self.config.steps, "batch": self.config.batch, "rate": self.config.rate}
        fit_scale(self.network, inputs, logits, truth, generator=generator, **settings)

    def _inputs(self, evidence: Evidence) -> Tensor:
        return answer_inputs(*evidence.need(self.kind, *self.reads))

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        return logits * self.network.log_scale(self._inputs(evidence)).exp()
