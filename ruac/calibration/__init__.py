"""Post-hoc calibration: logits in, logits out, by one interface; masks stay where they are."""

from ruac.calibration.answers import Answers, Evidence
from ruac.calibration.calibrator import Calibrator, Origin
from ruac.calibration.posterior import CalibratedPosterior
from ruac.calibration.registry import KINDS, KindSettings, build_calibrator, load_calibrator

__all__ = [
    "KINDS",
    "Answers",
    "CalibratedPosterior",
    "Calibrator",
    "Evidence",
    "KindSettings",
    "Origin",
    "build_calibrator",
    "load_calibrator",
]
