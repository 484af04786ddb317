"""What a row of the sweep asks: vanilla SAM 2, a trained head, or one of the references that need no training."""

from __future__ import annotations

from ruac.backbone import load_backbone
from ruac.base.errors import RuacError
from ruac.calibration.calibrator import SOURCE
from ruac.evaluation.sweep.config import ModelConfig
from ruac.inference.bounds import read_bounds
from ruac.inference.ensemble import Ensemble
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.reliability import load_reliability, reliability_identity
from ruac.inference.temperature_file import read_temperature
from ruac.inference.unccorr import UncCorr
from ruac.uncertainty.temperature import TemperatureConfig, TemperatureHead


def load_model(entry: ModelConfig) -> UncertainSam:
    """The model of an entry, on the CPU. Raises `RuacError` for files that are missing or do not belong together."""
    model = _load(entry)
    if entry.conformal is not None:
        model.thresholds = read_bounds(entry.conformal, model).at(entry.alpha)
    if entry.reliability is not None:
        looks = model.looks.looks if model.looks else []
        model.reliability = load_reliability(entry.reliability, reliability_identity(model)).reader(looks)
        if model.reliability is None:
            raise RuacError(f"{entry.reliability}: nothing was fitted for looks {looks}")
    return model


def _load(entry: ModelConfig) -> UncertainSam:
    if entry.export is not None:
        model = load_exported(entry.export, backbone=entry.backbone)
    else:
        backbone = load_backbone(entry.backbone)
        if entry.ensemble is not None:
            return UncertainSam(backbone, Ensemble(entry.ensemble))
        head = None
        if entry.temperature is not None:
            head = TemperatureHead(TemperatureConfig(temperature=read_temperature(entry.temperature, backbone)))
        model = UncertainSam(backbone, head)
    if entry.unccorr:
        model.filters.append(UncCorr())
    model.looks = entry.looks_over(model.looks)
    return model


def is_vanilla(model: UncertainSam) -> bool:
    """Whether it is SAM 2 as it is: without head and calibrator, asked once, and with its masks left alone."""
    return model.head is None and model.calibrator is None and not model.filters and not model.looks


def mark(model: UncertainSam) -> str:
    """The end of the name of a row that was calibrated on images of the target: nobody shall take it for zero-shot."""
    if model.calibrator is None or model.calibrator.origin.fitted_on == SOURCE:
        return ""
    return f" ({model.calibrator.origin.fitted_on})"
