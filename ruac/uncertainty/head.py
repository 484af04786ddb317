"""What a head is: its config, and what it and its posterior must offer to training, prediction and the sweep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

from torch import Generator, Tensor

from ruac.base.errors import RuacError

if TYPE_CHECKING:
    from ruac.backbone.outputs import Decoded


WIDEST = 4096


@dataclass
class HeadConfig:
    """What every head's config has; each derives its own, beside its class, and `registry.HEADS` names them all.

    posterior: which head. ``signed`` keeps SAM 2's logits as the mean and learns the spread only; ``nonnegative`` is
    the paper's, with its own factors behind a ReLU, and masks that start untrained. References: ``evidential``
    (UR-ERN), MC ``dropout``, a last-layer ``laplace`` approximation, ``temperature`` and ``local_temperature``, a
    scale without spread, and ``none``, SAM 2 without a head, which has nothing else to set.
    """

    KIND: ClassVar[str] = "posterior"
    KINDS: ClassVar[dict[str, type[HeadConfig]]] = {}  # filled by the registry
    # One dataclass held the fields of all heads: they were recorded with each, and those of others never acted.
    FLAT: ClassVar[tuple[str, ...]] = (
        *("kappa", "hidden", "kappa_min", "kappa_max", "kappa_init", "variance", "logit_scale"),
        *("prior_shape", "prior_rate"),
    )
    RENAMED: ClassVar[dict[str, str]] = {"context": "local_temperature", "context_hidden": "local_hidden"}
    RENAMED_KINDS: ClassVar[dict[str, str]] = {"context": "local_temperature"}

    posterior: str

    def validate(self) -> None:
        """Raise `RuacError` for impossible values."""
        if self.KINDS.get(self.posterior) is not type(self):
            own = [posterior for posterior, kind in self.KINDS.items() if kind is type(self)]
            raise RuacError(f"head.posterior: expected {' or '.join(own)}, found {self.posterior!r}")

    def expect_one_of(self, key: str, *choices: str) -> None:
        if (value := getattr(self, key)) not in choices:
            raise RuacError(f"head.{key}: expected {' or '.join(choices)}, found {value!r}")

    def expect_at_least(self, key: str, least: int) -> None:
        """And at most `WIDEST`: an export is a file, and may claim any width before its weights are looked at."""
        if not least <= (value := getattr(self, key)) <= WIDEST:
            raise RuacError(f"head.{key}: expected at least {least} and at most {WIDEST}, found {value}")


@dataclass
class ScaledHeadConfig(HeadConfig):
    """logit_scale: learn one positive factor of mean and standard deviation in `calibrated`. Variance can only lower
    confidence, so an underconfident backbone needs it."""

    logit_scale: bool = False


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
