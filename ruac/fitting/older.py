"""The settings of two older verbs, each a calibration of one kind: ``fit-temperature``, ``fit-local-temperature``."""

from __future__ import annotations

from dataclasses import dataclass, field

from ruac.base.errors import RuacError
from ruac.calibration.answer import AnswerConfig
from ruac.data.augment import AugmentConfig
from ruac.data.training import TrainingDataConfig
from ruac.evaluation.protocol import ProtocolConfig
from ruac.fitting.calibrate import CalibrateConfig
from ruac.fitting.draw import PixelConfig, StressedDrawConfig
from ruac.training.attack import AttackConfig


@dataclass
class TemperatureFitConfig:
    """``kind=temperature`` on vanilla SAM 2, by default from object bands alone. region: ``band`` or ``image``."""

    source: str = "???"
    backbone: str = "nano"
    out: str = "runs/temperature"
    images: int = 200
    pixels: int = 20_000
    region: str = "band"
    seed: int = 0
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if self.region not in ("band", "image"):
            raise RuacError(f"region: {self.region!r}, expected band or image")
        self.calibration().validate()

    def calibration(self) -> CalibrateConfig:
        sampling = PixelConfig(self.pixels, band_share=float(self.region == "band"), objects=10**6)
        sampling.validate()
        same = {
            name: getattr(self, name) for name in ("source", "backbone", "out", "images", "seed", "cpu", "protocol")
        }
        return CalibrateConfig(kind="temperature", held_out=0.0, cache="", sampling=sampling, **same)


@dataclass
class LocalTemperatureFitConfig:
    """``kind=answer`` under ``draw=stressed``. pixels: of each object's band; map_pixels: of its whole map. split: of
    source. All else as in `CalibrateConfig`, `StressedDrawConfig` and `AnswerConfig`."""

    source: str = "???"
    out: str = "runs/local_temperature"
    export: str | None = None
    backbone: str | None = None
    split: str | None = None
    images: int = 600
    corrections: int = 2
    box_share: float = 0.3
    pixels: int = 120
    map_pixels: int = 60
    steps: int = 1500
    batch: int = 4096
    rate: float = 5e-3
    hidden: int = 32
    seed: int = 0
    cpu: bool = False
    attack: AttackConfig = field(default_factory=lambda: AttackConfig(kind="random"))
    data: TrainingDataConfig = field(default_factory=lambda: TrainingDataConfig(augment=AugmentConfig(crop=0.5)))

    def validate(self) -> None:
        if self.images < 1 or self.pixels < 1 or self.map_pixels < 0:
            raise RuacError("expected images and pixels of at least 1, and map_pixels of at least 0")
        self.calibration().validate()

    def calibration(self) -> CalibrateConfig:
        each = self.pixels + self.map_pixels
        sampling = PixelConfig(each * self.data.objects, band_share=self.pixels / each, objects=self.data.objects)
        stress = StressedDrawConfig(self.corrections, self.box_share, self.attack, self.data)
        kept = 2 * self.images * sampling.pixels
        answer = AnswerConfig(self.hidden, kept, self.steps, self.batch, self.rate)
        for part in (sampling, stress, answer):
            part.validate()
        same = {name: getattr(self, name) for name in ("out", "export", "backbone", "images", "seed", "cpu")}
        source = self.source if self.split is None else f"{self.source}@{self.split}"
        own = {"sampling": sampling, "stress": stress, "answer": answer, "held_out": 0.0, "cache": ""}
        return CalibrateConfig(kind="answer", draw="stressed", source=source, **own, **same)
