"""Temperature scaling (Guo et al., 2017): one number that divides every logit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ruac.base.errors import RuacError
from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.histogram import LogitHistogram

FEWEST = 1000  # pixels of a group, below which it has all pixels' temperature
Points = tuple[np.ndarray, np.ndarray, np.ndarray]


class Temperature(Calibrator):
    """``l / T`` with the T that minimises the mean negative log-likelihood."""

    kind = "temperature"

    def __init__(self, config: object = None, *, temperature: float = 1.0):
        super().__init__(config)
        self.register_buffer("log_temperature", torch.tensor(math.log(temperature)))

    @property
    def temperature(self) -> float:
        """Above 1 lowers confidence."""
        return float(self.log_temperature.exp())

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        check_answers(answers)
        histogram = LogitHistogram()
        for one in answers:
            histogram.add(one.pixels(), one.truth)
        self.log_temperature.fill_(math.log(fit_temperature(histogram.points())))

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        return logits / self.log_temperature.exp()


def minimise(loss, start: Tensor) -> Tensor:
    """The minimiser of a smooth ``loss(x)`` by LBFGS, in float64."""
    x = start.double().requires_grad_(True)
    optimizer = torch.optim.LBFGS(
        [x], max_iter=200, tolerance_grad=1e-10, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(x)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    return x.detach()


def fit_temperature(points: Points) -> float:
    """The T that minimises the mean negative log-likelihood of ``sigmoid(logit / T)``.

    points: logit, truth and weight ``[M]``, see `LogitHistogram.points`. The loss is convex in 1 / T. It has a minimum
    at a positive and finite T just where logits are better than chance, by the slope at 1 / T = 0, and somewhere wrong.
    Raises `RuacError` where there is none.
    """
    logits, truth, weight = points
    if not ((logits > 0) != (truth > 0.5))[weight > 0].any() or (weight * (truth - 0.5) * logits).sum() <= 0:
        raise RuacError(
            f"temperature: no best value for {int(weight.sum())} pixels; "
            "expected logits that are better than chance, and some mistakes"
        )
    logit, target, share = (torch.from_numpy(x) for x in (logits, truth, weight / weight.sum()))
    found = minimise(lambda x: (share * nll(logit * (-x).exp(), target)).sum(), torch.zeros(()))
    return math.exp(float(found))


def fit_groups(histogram: LogitHistogram) -> tuple[float, np.ndarray]:
    """One temperature for all pixels, and one per group ``[G]``; all pixels' for groups that are too small for one."""
    common = fit_temperature(histogram.points())
    own = np.full(len(histogram.count), common)
    for group in np.flatnonzero(histogram.pixels >= FEWEST):
        try:
            own[group] = fit_temperature(histogram.points(int(group)))
        except RuacError:  # a few easy pictures, without a mistake
            continue
    return common, own


def nll(logit: Tensor, target: Tensor) -> Tensor:
    """Negative log-likelihood in nats of truth in {0, 1} under ``sigmoid(logit)``, pixel by pixel."""
    return F.binary_cross_entropy_with_logits(logit, target, reduction="none")
