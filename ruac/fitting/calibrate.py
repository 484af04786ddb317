"""Calibrate a frozen model: draw its answers once, fit a calibrator of some kind, and export the two together."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ruac.backbone import BackboneConfig, backbone_config, load_backbone
from ruac.backbone.load import backbone_name
from ruac.base.errors import RuacError
from ruac.base.files import held, write_text
from ruac.base.provenance import environment
from ruac.base.version import VERSION
from ruac.calibration import KindSettings, Origin, build_calibrator
from ruac.calibration.calibrator import ALL, ORACLE, SOURCE
from ruac.calibration.registry import check_kind
from ruac.data.open import open_dataset, place_and_split
from ruac.data.training import TrainingSet
from ruac.evaluation.protocol import ProtocolConfig
from ruac.fitting.cache import CachedAnswers, cache_answers
from ruac.fitting.draw import PixelConfig, Stored, StressedDrawConfig, draw_prompted, draw_stressed
from ruac.fitting.quality import quality
from ruac.fitting.splits import Part, Split, split_images
from ruac.inference.export import export_model, exported_backbone, load_exported, model_identity, origin
from ruac.inference.model import UncertainSam
from ruac.training.attack import build_attacker

DRAWS = ("prompted", "stressed")


@dataclass
class CalibrateConfig(KindSettings):
    """kind: of `KINDS`. export: a folder of ruac export, or backbone: SAM 2 without a head; one of the two.

    source: held-out source images, ``FOLDER`` or ``FOLDER@SPLIT``; all that a zero-shot row may see. targets: data sets
    of the target, of which half of the images are used and the other half, written as a list, is left for the sweep.
    Without source the result is an oracle, with it one of all; either is marked so in every table.

    images: per data set, chosen by a hash (0: all). held_out: share of the source's that the fit does not see, and on
    which its quality is recorded. draw: ``prompted``, the sweep's own prompts (`protocol`); or ``stressed``, crops,
    random clicks and attacks, of `images` numbered samples (`stress`). sampling: which pixels. cache: folder of answers
    that later calibrations of the same model on the same images share; empty for none.
    """

    kind: str = "???"
    source: str | None = None
    targets: list[str] = field(default_factory=list)
    export: str | None = None
    backbone: str | None = None
    out: str = "runs/calibrated"
    cache: str = "runs/answers"
    images: int = 200
    held_out: float = 0.2
    draw: str = "prompted"
    seed: int = 0
    cpu: bool = False
    sampling: PixelConfig = field(default_factory=PixelConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    stress: StressedDrawConfig = field(default_factory=StressedDrawConfig)

    def validate(self) -> None:
        check_kind(self.kind)
        if (self.export is None) == (self.backbone is None):
            raise RuacError("expected exactly one of export= and backbone=")
        if self.source is None and not self.targets:
            raise RuacError("expected source=, or targets= for an oracle")
        if self.draw not in DRAWS:
            raise RuacError(f"draw: {self.draw!r}, expected {' or '.join(DRAWS)}")
        if self.images < 0 or not 0 <= self.held_out < 1:
            raise RuacError(f"images {self.images}, held_out {self.held_out}: expected at least 0, and a share below 1")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")
        if Path(self.out).suffix == ".json":
            raise RuacError(f"out: {self.out}, expected a folder: a fit is an export")

    @property
    def fitted_on(self) -> str:
        """Whether the result is zero-shot: see `Origin`."""
        if not self.targets:
            return SOURCE
        return ORACLE if self.source is None else ALL


def run_calibrate(config: CalibrateConfig) -> Path:
    """Fit and export to the folder ``config.out``. Raises `RuacError` for unusable data, models or pixels."""
    model, spec, whole = _model(config)
    identity = model_identity(model)
    splits = _splits(config)
    model.to(PartialState(cpu=config.cpu).device)
    calibrator = build_calibrator(config.kind, config)
    calibrator.origin = Origin(config.fitted_on, **identity)
    with _folder(config.cache) as cache:
        drawn = [_draw(model, split.fit, config, config.draw, identity, cache) for split in splits]
        judged = [_draw(model, s.held_out, config, "prompted", identity, cache) for s in splits if len(s.held_out)]
        answers = Joined([CachedAnswers(folder, every_click=calibrator.every_click) for folder in drawn])
        if any(True for _ in calibrator.parameters()):  # networks go where the model is; counts stay where pixels are
            calibrator.to(next(model.parameters()).device)
        calibrator.fit(answers, seed=config.seed)
        calibrator.cpu().eval()
        found = quality(Joined([CachedAnswers(folder) for folder in judged]), calibrator)
    record = {
        "calibration": asdict(config),
        "fitted_on": config.fitted_on,
        "splits": {s.fit.name: {"fit": s.fit.record(), "held_out": s.held_out.record()} for s in splits},
        "held_out": found,
        "environment": environment(),
        **origin(config.export),
    }
    out = Path(config.out)
    with held(out, patience=60.0):  # of two runs one writes after the other, and not each a part
        for split in splits:
            for name, part in (("fit", split.fit), ("held_out", split.held_out)):
                write_text(out / "splits" / split.fit.name / f"{name}.txt", "".join(f"{r.id}\n" for r in part.records))
        model.cpu().calibrator = calibrator
        return export_model(model, spec, out, with_backbone=whole, record=record)


class Joined:
    """Sequences one after the other, without copying."""

    def __init__(self, parts: list):
        self.places = [(part, n) for part in parts for n in range(len(part))]

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Any:
        part, n = self.places[index]
        return part[n]


def _model(config: CalibrateConfig) -> tuple[UncertainSam, BackboneConfig, bool]:
    """The model, how to rebuild its backbone, and whether the result holds that as well."""
    if config.backbone is not None:
        spec = backbone_config(config.backbone)
        return UncertainSam(load_backbone(spec), None).eval(), spec, backbone_name(spec) is None
    model = load_exported(config.export)
    if model.calibrator is not None:
        raise RuacError(f"{config.export}: has a {model.calibrator.kind} calibration, expected a model without one")
    if model.reader is not None:
        raise RuacError(f"{config.export}: has a reader, which calibrates its looks; expected a model without one")
    return model, *exported_backbone(config.export)


def _splits(config: CalibrateConfig) -> list[Split]:
    """The source's pictures first, then halves of every target. Raises `RuacError` for a name that occurs twice."""
    splits = {}
    wanted = [(config.source, config.held_out)] if config.source is not None else []
    for entry, share in wanted + [(target, 0.5) for target in config.targets]:
        folder, split = place_and_split(entry)
        dataset = open_dataset(folder, split=split, orientation=config.stress.data.orientation)
        if dataset.name in splits:
            raise RuacError(f"{entry}: another data set is named {dataset.name!r} already")
        splits[dataset.name] = split_images(dataset, images=config.images, held_out=share, seed=config.seed)
    return list(splits.values())


def _draw(
    model: UncertainSam, part: Part, config: CalibrateConfig, draw: str, identity: dict[str, Any], cache: Path
) -> Path:
    """The folder of cached answers to the pictures of `part`, filled where it is not."""
    settings = {"protocol": asdict(config.protocol)} if draw == "prompted" else {"stress": asdict(config.stress)}
    count = len(part) if draw == "prompted" else config.images or len(part)
    key = [VERSION, identity, part.record(), draw, settings, asdict(config.sampling), config.seed, count]
    folder = cache / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    if draw == "prompted":

        def ask(number: int) -> list[Stored]:
            return [draw_prompted(model, part[number], config.protocol, config.sampling, config.seed)]

    else:
        stress = config.stress
        data = TrainingSet(part, stress.data, side=model.image_size, seed=config.seed, length=count)
        attacker = None
        if stress.attack.kind != "none":
            attacker = build_attacker(stress.attack, feature_dim=model.backbone.token_dim)
            attacker.to(next(model.parameters()).device)

        def ask(number: int) -> list[Stored]:
            return draw_stressed(model, data[number], attacker, stress, config.sampling, (config.seed, number))

    return cache_answers(folder, count, ask, title=f"{part.name}: {len(part)} images")


@contextmanager
def _folder(path: str) -> Iterator[Path]:
    """The folder, or one that is gone afterwards."""
    if path:
        yield Path(path)
    else:
        with tempfile.TemporaryDirectory() as temporary:
            yield Path(temporary)
