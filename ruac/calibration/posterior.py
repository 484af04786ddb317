"""A model's posterior with a calibrator behind it: the same masks, another probability."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ruac.calibration.answers import Evidence
from ruac.calibration.calibrator import Calibrator
from ruac.uncertainty.head import MaskPosterior
from ruac.uncertainty.maps import probit_logit


@dataclass(frozen=True, eq=False, kw_only=True)
class CalibratedPosterior:
    """Masks, variance and own scores of `inner`; its analytic logit goes through the calibrator.

    It does when it is asked for, so that tokens nobody returns cost nothing. index: tokens of the K masks, int64
    ``[N, K]``.
    """

    inner: MaskPosterior
    calibrator: Calibrator
    evidence: Evidence
    index: Tensor

    @classmethod
    def of(cls, inner: MaskPosterior, calibrator: Calibrator, evidence: Evidence) -> CalibratedPosterior:
        """Of all tokens of an answer."""
        tokens = torch.arange(inner.mean.shape[1], device=inner.mean.device)
        return cls(inner=inner, calibrator=calibrator, evidence=evidence, index=tokens.expand(inner.mean.shape[0], -1))

    @property
    def mean(self) -> Tensor:
        """Logits whose sign is the mask ``[N, K, h, w]``: not calibrated."""
        return self.inner.mean

    @property
    def variance(self) -> Tensor:
        return self.inner.variance

    def calibrated(self) -> tuple[Tensor, Tensor]:
        """Normal logits with the inner variance, whose analytic probability is the calibrated one."""
        mean, variance = self.inner.calibrated()
        return self._through(probit_logit(mean, variance)) * torch.sqrt(1 + math.pi / 8 * variance), variance

    def _through(self, logits: Tensor) -> Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            columns = [
                self.calibrator(logits[:, [k]].float(), replace(self.evidence, choice=choice))
                for k, choice in enumerate(self.index.unbind(1))
            ]
            return torch.cat(columns, dim=1)

    def select(self, index: Tensor) -> CalibratedPosterior:
        """The posterior of token ``index[n]`` of object n (int64 ``[N]``): K = 1."""
        return replace(self, inner=self.inner.select(index), index=self.index.gather(1, index[:, None]))

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Logits of one draw, not calibrated."""
        return self.inner.sample(generator)

    def calibrated_sample(self, generator: Generator | None = None) -> Tensor:
        """A draw through the calibrator."""
        return self._through(self.inner.calibrated_sample(generator))

    def kl(self) -> Tensor:
        return self.inner.kl()

    def scores(self) -> dict[str, Tensor]:
        return self.inner.scores()
