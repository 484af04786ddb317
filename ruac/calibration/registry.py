"""All calibrators by the name of their kind."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruac.base.errors import RuacError
from ruac.calibration.answer import Answer, AnswerConfig
from ruac.calibration.binning import Beta, BinningConfig, Histogram, Isotonic
from ruac.calibration.calibrator import Calibrator, read_calibrator
from ruac.calibration.clicks import Clicks
from ruac.calibration.clustered import Clustered, ClusteredConfig
from ruac.calibration.ensemble import EnsembleTemperature
from ruac.calibration.local import READS, Local, LocalConfig
from ruac.calibration.temperature import Temperature

KINDS: dict[str, type[Calibrator]] = {
    cls.kind: cls
    for cls in (Temperature, Clustered, Local, Answer, Clicks, EnsembleTemperature, Isotonic, Beta, Histogram)
}
"""To add a kind: a subclass of `Calibrator` in a file of its own, and its name here."""

ROWS = (*KINDS, *(f"{Local.kind}_{reads}" for reads in READS if reads != "both"))
"""Names of rows in tables: kinds as they are, and the ablations of `Local`, see `row_settings`."""


@dataclass
class KindSettings:
    """What each kind is set with; those of other kinds are left alone."""

    clustered: ClusteredConfig = field(default_factory=ClusteredConfig)
    local: LocalConfig = field(default_factory=LocalConfig)
    answer: AnswerConfig = field(default_factory=AnswerConfig)
    binning: BinningConfig = field(default_factory=BinningConfig)


def row_settings(row: str) -> dict[str, Any]:
    """What one of `ROWS` sets of a config with a ``kind`` and `KindSettings`: its kind, and how `Local` reads."""
    if row in KINDS:
        return {"kind": row}
    kind, _, reads = row.partition("_")
    return {"kind": kind, "local": LocalConfig(reads)}


def check_kind(kind: str) -> None:
    """Raise `RuacError` with the nearest of `KINDS` if `kind` is none of them."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1, cutoff=0.0)[0]
        raise RuacError(f"kind: unknown {kind!r}, did you mean {near!r}? expected one of: {', '.join(KINDS)}")


def build_calibrator(kind: str, settings: KindSettings | None = None) -> Calibrator:
    """A new calibrator that changes nothing, or nothing of note, before it is fitted."""
    check_kind(kind)
    cls = KINDS[kind]
    return cls(getattr(settings, cls.settings) if settings is not None and cls.settings else None)


def load_calibrator(path: str | Path, *, model: str | None = None, image_size: int | None = None) -> Calibrator:
    """Read a file of `Calibrator.save`, whatever its kind, see `Calibrator.load`."""
    kind = read_calibrator(path)[0]["kind"]
    if kind not in KINDS:
        raise RuacError(f"{path}: a calibrator of unknown kind {kind!r}; expected one of: {', '.join(KINDS)}")
    return KINDS[kind].load(path, model=model, image_size=image_size)
