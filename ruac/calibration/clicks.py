"""A temperature per number of clicks: the first answer is a guess, the fifth is nearly always right (ours)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.histogram import LogitHistogram
from ruac.calibration.temperature import fit_groups

MOST = 16  # clicks that are told apart


class Clicks(Calibrator):
    """``l / T_c``, c the number of clicks, with or without a box; a number that was not fitted has the nearest's."""

    kind = "clicks"
    reads = ("clicks", "boxed")
    every_click = True

    def __init__(self, config: object = None):
        super().__init__(config)
        self.register_buffer("log_temperature", torch.zeros(2, MOST + 1))  # without a box, with one

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        check_answers(answers)
        histogram = LogitHistogram(2 * (MOST + 1))
        for one in answers:
            group = self._group(one.evidence)
            histogram.add(one.pixels(), one.truth, group[one.place[:, 0].long()])
        _, own = fit_groups(histogram)
        table, known = torch.from_numpy(own).log().view(2, -1), torch.from_numpy(histogram.pixels > 0).view(2, -1)
        for row in range(2):
            fitted = (known[row] if known[row].any() else known.any(0)).nonzero()[:, 0]
            origin = row if known[row].any() else 1 - row
            nearest = fitted[(torch.arange(MOST + 1)[:, None] - fitted).abs().argmin(dim=1)]
            self.log_temperature[row] = table[origin, nearest].float()

    def _group(self, evidence: Evidence) -> Tensor:
        clicks, boxed = evidence.need(self.kind, "clicks", "boxed")
        if clicks.min() < 0:
            raise RuacError(f"clicks: {int(clicks.min())}, expected at least 0")
        return boxed.long() * (MOST + 1) + clicks.clamp(max=MOST)

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        return logits / self.log_temperature.view(-1)[self._group(evidence)].exp()[:, None, None, None]
