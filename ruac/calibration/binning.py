"""References that are no temperatures: isotonic regression, histogram binning and beta calibration of the logit.

They may map a logit across 0, so that a probability would lie on the other side of 1/2 than the mask. With
``keep_masks`` it is held at 1/2 there. For isotonic regression and histogram binning this is the constrained optimum,
not a repair: both losses are separable and convex, so that bounds are met by clipping the free solution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ruac.base.errors import RuacError
from ruac.calibration.answers import Answers, Evidence, check_answers
from ruac.calibration.calibrator import Calibrator
from ruac.calibration.ensemble import TINY
from ruac.calibration.histogram import LogitHistogram


@dataclass
class BinningConfig:
    """keep_masks: hold a probability at 1/2 where it would contradict the mask. bins: of histogram binning, of equal
    width in the probability; even, so that no bin lies on both sides of 1/2."""

    keep_masks: bool = True
    bins: int = 20

    def validate(self) -> None:
        if self.bins < 2 or self.bins % 2 or self.bins > 1 << 20:
            raise RuacError(f"bins: {self.bins}, expected an even number of at least 2 and at most {1 << 20}")


class Binning(Calibrator):
    """What the three have in common."""

    settings = "binning"
    Config = BinningConfig

    @property
    def keeps_masks(self) -> bool:
        return self.config.keep_masks

    def fit(self, answers: Sequence[Answers], *, seed: int = 0) -> None:
        check_answers(answers)
        histogram = LogitHistogram()
        for one in answers:
            histogram.add(one.pixels(), one.truth)
        logit, truth, weight = histogram.points()
        if min(weight[truth == label].sum() for label in (0, 1)) == 0:
            raise RuacError(f"{self.kind}: {int(weight.sum())} pixels of one kind only, expected object and background")
        self._fit(logit, truth, weight)

    def _fit(self, logit: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> None:
        raise NotImplementedError

    def forward(self, logits: Tensor, evidence: Evidence) -> Tensor:
        mapped = self._map(logits)
        if not self.keeps_masks:
            return mapped
        return logits.sign() * (logits.sign() * mapped).clamp_min(TINY)


class Isotonic(Binning):
    """The non-decreasing function of the logit with the least squared error (Zadrozny and Elkan, 2002).

    Ends where all pixels agree would be certain, and the first exception infinitely costly: probabilities stay half a
    pixel away from 0 and 1.
    """

    kind = "isotonic"

    def __init__(self, config: BinningConfig | None = None):
        super().__init__(config)
        self.register_buffer("knots", torch.tensor([-1.0, 1.0]))
        self.register_buffer("values", torch.tensor([0.25, 0.75]))

    def _fit(self, logit: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> None:
        from sklearn.isotonic import IsotonicRegression

        least = 0.5 / weight.sum()
        found = IsotonicRegression(y_min=least, y_max=1 - least).fit(logit, truth, sample_weight=weight)
        self.knots = torch.from_numpy(np.asarray(found.X_thresholds_, np.float64))
        self.values = torch.from_numpy(np.asarray(found.y_thresholds_, np.float64))

    def _map(self, logits: Tensor) -> Tensor:
        x = logits.to(self.knots).clamp(self.knots[0], self.knots[-1])
        right = torch.searchsorted(self.knots, x).clamp(1, len(self.knots) - 1)
        start, end = self.knots[right - 1], self.knots[right]
        share = ((x - start) / (end - start).clamp_min(1e-30)).clamp(0, 1)
        return torch.lerp(self.values[right - 1], self.values[right], share).logit().float()


class Histogram(Binning):
    """The share of object pixels in bins of equal width of the probability (Zadrozny and Elkan, 2001).

    Half a pixel of each kind is added to a bin, so that none is certain; a bin without pixels keeps its middle.
    """

    kind = "histogram"

    def __init__(self, config: BinningConfig | None = None):
        super().__init__(config)
        self.register_buffer("values", (torch.arange(self.config.bins) + 0.5) / self.config.bins)

    def _fit(self, logit: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> None:
        bins = self.config.bins
        index = self._bin(torch.from_numpy(logit)).numpy()
        pixels = np.bincount(index, weight, bins)
        positive = np.bincount(index, weight * truth, bins)
        middle = (np.arange(bins) + 0.5) / bins
        share = np.where(pixels > 0, (positive + 0.5) / (pixels + 1), middle)
        self.values.copy_(torch.from_numpy(share))

    def _bin(self, logits: Tensor) -> Tensor:
        return (logits.double().sigmoid() * self.config.bins).long().clamp(0, self.config.bins - 1)

    def _map(self, logits: Tensor) -> Tensor:
        return self.values.logit()[self._bin(logits)]


class Beta(Binning):
    """``a log p - b log(1 - p) + c`` with a, b >= 0 (Kull, Silva Filho and Flach, 2017), a logistic regression.

    Where it would make a or b negative, that one is 0 and the rest is fitted again, as its authors do.
    """

    kind = "beta"

    def __init__(self, config: BinningConfig | None = None):
        super().__init__(config)
        self.register_buffer("coefficients", torch.tensor([1.0, 1.0, 0.0]))  # a, b, c

    def _fit(self, logit: np.ndarray, truth: np.ndarray, weight: np.ndarray) -> None:
        from sklearn.linear_model import LogisticRegression

        x = torch.from_numpy(logit)
        inputs = torch.stack([logsigmoid(x), -logsigmoid(-x)], dim=1).numpy()
        used = [0, 1]
        while True:
            model = LogisticRegression(C=1e12, tol=1e-8, max_iter=1000).fit(
                inputs[:, used], truth, sample_weight=weight
            )
            negative = [name for name, slope in zip(used, model.coef_[0], strict=True) if slope < 0]
            if not negative or len(used) == 1:
                break
            used = [name for name in used if name not in negative[:1]]
        slopes = np.zeros(2)
        slopes[used] = model.coef_[0].clip(min=0)
        self.coefficients.copy_(torch.tensor([*slopes, float(model.intercept_[0])]))

    def _map(self, logits: Tensor) -> Tensor:
        a, b, c = self.coefficients
        return a * logsigmoid(logits) - b * logsigmoid(-logits) + c
