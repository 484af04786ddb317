"""Ensemble temperature scaling (Zhang et al., 2020): a mixture of scaled, plain and constant probability."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.histogram import LogitHistogram
from ruac.calibration.temperature import fit_temperature, minimise

TINY = 1e-12  # of a logit that must keep its sign


class EnsembleTemperature(Calibrator):
    """``p = w_1 sigmoid(l / T) + w_2 sigmoid(l) + w_3 / 2``, positive weights of sum 1: three models of one logit.

    T is that of temperature scaling, the weights minimise the negative log-likelihood given T, which is convex. Each
    part is on the same side of 1/2 as the logit, and so is the mixture.
    """

    kind = "ensemble"

    def __init__(self, config: object = None):
        super().__init__(config)
        self.register_buffer("log_temperature", torch.zeros(()))
        self.register_buffer("weights", torch.tensor([1.0, 0.0, 0.0]))

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        check_answers(answers)
        histogram = LogitHistogram()
        for one in answers:
            histogram.add(one.pixels(), one.truth)
        points = histogram.points()
        temperature = fit_temperature(points)
        logit, truth, weight = (torch.from_numpy(x) for x in points)
        likely = (2 * truth - 1) * logit  # large where the logit is right
        parts = torch.stack(
            [logsigmoid(likely / temperature), logsigmoid(likely), torch.full_like(likely, -math.log(2))]
        )

        def loss(x: Tensor) -> Tensor:
            mixed = (x.log_softmax(0)[:, None] + parts).logsumexp(0)
            return -(weight * mixed).sum() / weight.sum()

        self.log_temperature.fill_(math.log(temperature))
        self.weights.copy_(minimise(loss, torch.tensor([2.0, 0.0, 0.0])).softmax(0))

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        size, weight = logits.abs(), self.weights.log()
        scaled = size / self.log_temperature.exp()
        half = torch.full_like(size, -math.log(2))
        right, wrong = (
            torch.stack([w + part for w, part in zip(weight, parts, strict=True)]).logsumexp(0)
            for parts in (
                (logsigmoid(scaled), logsigmoid(size), half),
                (logsigmoid(-scaled), logsigmoid(-size), half),
            )
        )
        return logits.sign() * (right - wrong).clamp_min(TINY)
