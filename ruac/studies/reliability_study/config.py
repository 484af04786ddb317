"""What a study is asked for: models, calibrations, and where both are judged."""

from __future__ import annotations

from dataclasses import dataclass, field

from ruac.base.errors import RuacError
from ruac.calibration import KINDS
from ruac.calibration.registry import ROWS
from ruac.conformal.quantile import check_alpha
from ruac.data.synthetic.corruptions import parse_corruption
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.results.schema import REGIONS
from ruac.evaluation.sweep.open import check_name
from ruac.fitting.splits import FEWEST

NONE = "none"
"""The row of a model as it is, before any calibration."""


@dataclass
class StudiedModel:
    """name: in tables. Exactly one of backbone, vanilla SAM 2, and export, a folder of ruac export without a
    calibration."""

    name: str = "???"
    backbone: str | None = None
    export: str | None = None

    def validate(self) -> None:
        check_name(self.name, "model")
        if (self.backbone is None) == (self.export is None):
            raise RuacError(f"model {self.name!r}: expected exactly one of backbone= and export=")

    @property
    def place(self) -> dict[str, str]:
        """As fits and sweeps name it."""
        return {"backbone": self.backbone} if self.backbone is not None else {"export": self.export}


@dataclass
class StudyConfig:
    """source: pictures that no model was trained on, ``FOLDER@SPLIT``; `images` of them (0: all) are taken apart into
    those for every fit and the share `held_out`, of which `source_limit` are swept (0: all). domains: unseen data
    sets, folders or folders of such; `limit` pictures of each are swept (0: all).

    calibrations: kinds, fitted on the source; ``local_image`` and ``local_logits`` are the ablations of ``local``.
    target: kind of two further rows, empty for neither: ``oracle``, a fit
    per domain, and ``all``, one fit on the source and every domain. They see half of `target_images` pictures of each
    domain, and then **every** row is swept on the other half only.

    clusters, pixels: further fits, of ``clustered`` by number of clusters and of ``temperature`` by pixels per picture,
    of the models named in `ablated` (none given: of the first). corruptions: of `weather_limit` (0: all) held-out
    source pictures. bounded: rows that get conformal bounds at `alpha`, fitted on the pictures of the fits. region: of
    the figures; tables have both.
    """

    models: list[StudiedModel] = field(default_factory=list)
    source: str = "???"
    domains: list[str] = field(default_factory=list)
    calibrations: list[str] = field(default_factory=lambda: ["temperature", "clustered", "local", "answer"])
    target: str = "temperature"
    clusters: list[int] = field(default_factory=lambda: [2, 4, 8, 32])
    pixels: list[int] = field(default_factory=lambda: [10, 100, 1000])
    ablated: list[str] = field(default_factory=list)
    corruptions: list[str] = field(
        default_factory=lambda: [f"fog:{n}" for n in range(1, 6)] + ["rain:light", "rain:medium", "rain:heavy"]
    )
    bounded: list[str] = field(default_factory=lambda: [NONE])
    alpha: float = 0.1
    images: int = 0
    held_out: float = 0.2
    source_limit: int = 0
    target_images: int = 8
    limit: int = 0
    weather_limit: int = 0
    region: str = "band"
    seed: int = 0
    cpu: bool = False
    out: str = "runs/study"
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.models or not self.domains:
            raise RuacError("study: expected at least one entry under models and under domains")
        for model in self.models:
            model.validate()
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise RuacError(f"models: names occur twice in {names}")
        _check_among("calibrations", self.calibrations, list(ROWS))
        _check_among("ablated", self.ablated, names)
        _check_among("bounded", self.bounded, [NONE, *self.calibrations])
        _check_among("region", [self.region], list(REGIONS))
        if self.target:
            _check_among("target", [self.target], list(KINDS))
            if self.target_images and self.target_images // 2 < FEWEST:
                raise RuacError(f"target_images: {self.target_images}, expected at least {2 * FEWEST} (0: all)")
        for name, values in (("clusters", self.clusters), ("pixels", self.pixels)):
            if any(value < 1 for value in values) or len(set(values)) < len(values):
                raise RuacError(f"{name}: {values}, expected different numbers of at least 1")
        for name in ("images", "source_limit", "target_images", "limit", "weather_limit"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if not 0 < self.held_out < 1:
            raise RuacError(f"held_out: {self.held_out}, expected a share above 0 and below 1: the source is swept too")
        for text in self.corruptions:
            parse_corruption(text)
        check_alpha(self.alpha)
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")


def _check_among(name: str, given: list[str], known: list[str]) -> None:
    for entry in given:
        if entry not in known:
            raise RuacError(f"{name}: {entry!r}, expected any of: {', '.join(known)}")
    if len(set(given)) < len(given):
        raise RuacError(f"{name}: an entry occurs twice in {given}")
