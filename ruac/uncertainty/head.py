"""What a head is: its config, and what it and its posterior must offer to training, prediction and the sweep."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Generator, Tensor

from ruac.base.errors import RuacError
from ruac.uncertainty.weibull import LEAST_SHAPE

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded

POSTERIORS = ("signed", "nonnegative", "evidential", "dropout", "laplace", "local_temperature", "none")


@dataclass
class HeadConfig:
    """What the head predicts and where it starts.

    posterior: ``signed`` keeps SAM 2's logits as the mean and learns the spread only; ``nonnegative`` is the
    paper's, with its own factors behind a ReLU, and masks that start untrained. References: ``evidential``
    (UR-ERN), MC ``dropout``, a last-layer ``laplace`` approximation, ``local_temperature``, a scale per pixel without
    spread, and ``none``, SAM 2 without a head.
    logit_scale: learn one positive factor of mean and standard deviation in `calibrated`. Variance can only lower
    confidence, so an underconfident backbone needs it. Not for evidential, whose mean is no logit.
    local_temperature: one more factor of both, per pixel, that reads the mask, the candidates and the predicted IoU
    (`LocalTemperature`); local_hidden: width of its layers. Of Weibull heads; the posterior of that name is nothing
    else.
    hidden: width of the hidden layers (Weibull heads and dropout).

    Weibull heads. kappa: shape of the image tokens per pixel and ``channel``, or one per ``pixel``; mask tokens
    always have one per channel. kappa_init: its start; 4 gives each factor a standard deviation of 0.28 of its
    mean. variance: ``full`` (paper eq. S8) or ``short`` (first term only, eq. S9). prior_shape, prior_rate: the
    Gamma prior of the magnitudes.

    dropout: probability of dropping a channel. samples: passes whose moments are the answer.
    """

    RENAMED: ClassVar[dict[str, str]] = {"context": "local_temperature", "context_hidden": "local_hidden"}

    posterior: str = "signed"
    kappa: str = "channel"
    hidden: int = 16
    kappa_min: float = 0.5
    kappa_max: float = 10.0
    kappa_init: float = 4.0
    variance: str = "full"
    logit_scale: bool = False
    local_temperature: bool = False
    local_hidden: int = 32
    prior_shape: float = 1.0
    prior_rate: float = 3.0
    dropout: float = 0.1
    samples: int = 20

    def __post_init__(self) -> None:
        if self.posterior == "context":  # its name in older configs and exports
            self.posterior = "local_temperature"

    def validate(self) -> None:
        for key, choices in (
            ("posterior", POSTERIORS),
            ("kappa", ("channel", "pixel")),
            ("variance", ("full", "short")),
        ):
            if getattr(self, key) not in choices:
                raise RuacError(f"head.{key}: expected {' or '.join(choices)}, found {getattr(self, key)!r}")
        for key in ("hidden", "local_hidden"):
            if getattr(self, key) < 1:
                raise RuacError(f"head.{key}: expected at least 1, found {getattr(self, key)}")
        if self.local_temperature and self.posterior not in ("signed", "nonnegative"):
            raise RuacError(f"head.local_temperature: expected false for posterior {self.posterior}")
        if not LEAST_SHAPE <= self.kappa_min < self.kappa_max < math.inf:
            raise RuacError(
                "head.kappa_min, head.kappa_max: expected "
                f"{LEAST_SHAPE} <= kappa_min < kappa_max, found {self.kappa_min} and {self.kappa_max}"
            )
        if not self.kappa_min <= self.kappa_init <= self.kappa_max:
            raise RuacError(
                f"head.kappa_init: expected a value from {self.kappa_min} to {self.kappa_max}, found {self.kappa_init}"
            )
        for key in ("prior_shape", "prior_rate"):
            if not 0 < getattr(self, key) < math.inf:
                raise RuacError(f"head.{key}: expected a positive number, found {getattr(self, key)}")
        if not 0 < self.dropout < 1:
            raise RuacError(f"head.dropout: expected a probability in (0, 1), found {self.dropout}")
        if self.samples < 2:
            raise RuacError(f"head.samples: expected at least 2, found {self.samples}")
        if self.posterior == "evidential" and self.logit_scale:
            raise RuacError("head.logit_scale: expected false for posterior evidential, whose mean is no logit")


class MaskPosterior(Protocol):
    """K masks of N objects and what is not known about them; ``[N, K, h, w]`` float32 throughout.

    mean: logits, whose sign is the mask. variance: the head's own, of the logit unless the class says otherwise.
    """

    mean: Tensor
    variance: Tensor

    def calibrated(self) -> tuple[Tensor, Tensor]:
        """Mean and variance of normal logits, for the analytic probability and its entropy."""

    def select(self, index: Tensor) -> MaskPosterior:
        """The posterior of token ``index[n]`` of object n (int64 ``[N]``): K = 1."""

    def sample(self, generator: Generator | None = None) -> Tensor:
        """Logits ``[N, K, h, w]`` of one draw, differentiable."""

    def calibrated_sample(self, generator: Generator | None = None) -> Tensor:
        """The same with what `calibrated` applies: draws whose probabilities are to be averaged."""

    def kl(self) -> Tensor:
        """Scalar divergence from the prior; 0 without one."""

    def scores(self) -> dict[str, Tensor]:
        """Uncertainty maps of its own in [0, 1] by name, beside the entropy that every posterior has."""


class Head(Protocol):
    """A module on top of SAM 2's decoder. changes_masks: False where the mean is SAM 2's logits to the last bit."""

    config: HeadConfig
    changes_masks: bool

    def __call__(self, decoded: Decoded) -> MaskPosterior: ...
