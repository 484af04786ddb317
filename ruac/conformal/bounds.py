"""Inner and outer masks with a guarantee, from the mean losses of calibration images: any alpha, one small file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from ruac.base.config import config_from
from ruac.base.errors import RuacError, brief
from ruac.base.files import read_json, write_text
from ruac.conformal.mask_losses import INNER, OUTER
from ruac.conformal.quantile import check_alpha, check_enough
from ruac.conformal.risk import control_risk, learn_then_test

FORMAT = 1
NAME = "conformal.json"
LEVELS = ("share", "mask")
_CURVES = {"missed": OUTER, "impurity": INNER}


@dataclass
class BoundsConfig:
    """What an inner or outer mask promises.

    level: ``share``, the expected share of an object's pixels that the outer mask misses, and of the inner mask's
    that lie outside the object, is at most alpha; or ``mask``, that share exceeds `tolerance` for at most a share
    alpha of pictures (the mean of their objects). delta: 0 for an expectation over calibration and new pictures
    alike (conformal risk control); above 0, the promise holds with a probability of 1 - delta over the calibration
    pictures (learn then test).
    """

    level: str = "share"
    tolerance: float = 0.1
    delta: float = 0.0

    def validate(self) -> None:
        if self.level not in LEVELS:
            raise RuacError(f"level: {self.level!r}, expected {' or '.join(LEVELS)}")
        if not 0 <= self.tolerance < 1:
            raise RuacError(f"tolerance: {self.tolerance}, expected a share in [0, 1)")
        if not 0 <= self.delta < 1:
            raise RuacError(f"delta: {self.delta}, expected 0 (in expectation) or a number below 1")


@dataclass(frozen=True)
class Thresholds:
    """outer, inner: a mask is ``{p >= t}``. alpha: what they were asked to keep."""

    outer: float
    inner: float
    alpha: float

    def __call__(self, probability):
        """The inner and the outer mask of an array or tensor of probabilities: bool, of the same shape."""
        return probability >= self.inner, probability >= self.outer


@dataclass(frozen=True)
class MaskBounds:
    """Calibrated once, asked for any alpha.

    The guarantee: pictures are the exchangeable unit. For a new picture that is exchangeable with the `images`
    calibration pictures, prompted in the same way, the expected mean over its objects of the missed share of the
    outer mask is at most alpha, and so is that of the impurity of the inner mask (for other promises see
    `BoundsConfig`). Nothing is promised per object, per pixel, for pictures of another source, for prompts of
    another kind, or for the two candidates that SAM 2 ranks below its best.

    missed ``[L]``, impurity ``[L]``: mean losses at `OUTER` and `INNER`. identity: of the model and its input, see
    `ruac.inference.bounds`. record: provenance.
    """

    images: int
    missed: np.ndarray
    impurity: np.ndarray
    config: BoundsConfig = field(default_factory=BoundsConfig)
    identity: dict = field(default_factory=dict)
    record: dict = field(default_factory=dict)

    def at(self, alpha: float) -> Thresholds:
        """The thresholds at alpha. Raises `RuacError` where alpha is out of range or asks for more images."""
        check_alpha(alpha)
        check_enough(self.images, alpha, "conformal")
        outer, inner = (self._place(curve, alpha) for curve in (self.missed, self.impurity))
        return Thresholds(float(OUTER[outer]), float(INNER[inner]), float(alpha))

    def _place(self, mean: np.ndarray, alpha: float) -> int:
        if self.config.delta:
            return learn_then_test(mean, self.images, alpha, self.config.delta)
        return control_risk(mean, self.images, alpha)

    def save(self, path: str | Path, *, alpha: float) -> Path:
        """Write as JSON; alpha: whose thresholds stand in the file for readers."""
        shown = self.at(alpha)
        content = {
            "format": FORMAT,
            "alpha": alpha,
            "outer": shown.outer,
            "inner": shown.inner,
            "images": self.images,
            "config": asdict(self.config),
            "identity": self.identity,
            "missed": [float(f"{x:.9g}") for x in self.missed],
            "impurity": [float(f"{x:.9g}") for x in self.impurity],
            "record": self.record,
        }
        write_text(path, json.dumps(content) + "\n")
        return Path(path)


def fit_bounds(missed: np.ndarray, impurity: np.ndarray, config: BoundsConfig, **about: dict) -> MaskBounds:
    """Bounds from the losses ``[n, L]`` of n pictures, each the mean over its objects (`object_losses`).

    about: identity and record. At level ``mask`` a loss is whether the picture's share exceeds the tolerance: then
    risk control is split conformal prediction of the threshold that a picture needs.
    """
    if config.level == "mask":
        missed, impurity = ((losses > config.tolerance).astype(float) for losses in (missed, impurity))
    return MaskBounds(len(missed), missed.mean(0), impurity.mean(0), config, **about)


def load_bounds(path: str | Path) -> MaskBounds:
    """Read a file of `MaskBounds.save`. Raises `RuacError` that names the key at fault."""
    path = Path(path)
    content = read_json(path, "not found; expected a file written by ruac conformal")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise RuacError(f"{path}: expected a conformal file of format {FORMAT}")
    kinds = {"images": int, "config": dict, "identity": dict, "record": dict, "missed": list, "impurity": list}
    for key, kind in kinds.items():
        if not isinstance(content.get(key), kind):
            raise RuacError(f"{path}: key '{key}': expected a {kind.__name__}")
    curves = [_curve(content[key], grid, f"{path}: key '{key}'") for key, grid in _CURVES.items()]
    config = config_from(BoundsConfig, content["config"], f"{path}: key 'config'")
    return MaskBounds(content["images"], *curves, config, content["identity"], content["record"])


def _curve(values: list, grid: np.ndarray, where: str) -> np.ndarray:
    try:
        curve = np.array(values, dtype=float)
    except (TypeError, ValueError, OverflowError) as error:
        raise RuacError(f"{where}: expected numbers: {brief(error)}") from error
    if curve.shape != grid.shape or not ((curve >= 0) & (curve <= 1)).all() or (np.diff(curve) > 1e-9).any():
        raise RuacError(f"{where}: expected {len(grid)} numbers in [0, 1] that never grow")
    return curve
