"""Pseudo-labels of a folder: calibrated on its labelled subset, filtered, written with what is known of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from accelerate import PartialState
from rich.progress import track

from ruac.base.errors import RuacError
from ruac.base.files import atomic_folder, write_text
from ruac.base.provenance import environment
from ruac.conformal.pixel_scores import PixelThresholds, fit_pixel_thresholds, pixel_scores
from ruac.conformal.pixel_sets import FILTERS, kept_labels, prediction_sets
from ruac.conformal.quantile import check_alpha, check_enough
from ruac.conformal.regions import RegionsConfig
from ruac.data.classes import IGNORE, ClassedSample, ClassFolder
from ruac.evaluation.conformal.fit import draw_places, open_model
from ruac.evaluation.report.overlay import paint_mask
from ruac.inference.bounds import bounds_identity
from ruac.inference.predictor import Predictor
from ruac.inference.save import save_png
from ruac.labelling.class_maps import class_probability
from ruac.labelling.prompts import KINDS, annotated_prompts, read_prompts
from ruac.labelling.statistics import LabelStatistics

RECORD = "record.json"


@dataclass
class PseudoLabelConfig:
    """source: folder with classes, see `ClassFolder`. export, backbone: as in `ConformalConfig`. prompts: ``boxes`` or
    ``points`` of the annotated objects, or a JSON file of prompts by class (`read_prompts`). background: whether class
    0 is a background that dominates. labelled: list of pictures whose labels calibrate, NAME of ``NAME.txt`` in the
    source or a path; or fraction: their share of all pictures, drawn by `seed`. unlabelled: list of the pictures to
    label, without it all others.

    alpha: share of pixels whose set may miss the true class. filter: see `kept_labels`. regions: which pixels share a
    threshold. each: a threshold of its own for every class. grid: side of the grid of places on which it is fitted.
    weigh: by predicted IoU. limit: of pictures to label (0: all). overlays: pictures of labels beside them."""

    source: str = "???"
    export: str | None = None
    backbone: str | None = None
    prompts: str = "boxes"
    background: bool = True
    labelled: str | None = None
    unlabelled: str | None = None
    fraction: float = 0.25
    alpha: float = 0.05
    filter: str = "class_conditional"
    regions: RegionsConfig = field(default_factory=lambda: RegionsConfig(kind="location"))
    each: bool = False
    grid: int = 64
    weigh: bool = False
    limit: int = 0
    overlays: int = 8
    seed: int = 0
    cpu: bool = False
    out: str = "runs/pseudo_labels"

    def validate(self) -> None:
        check_alpha(self.alpha)
        if self.export is None and self.backbone is None:
            raise RuacError("pseudo_label: expected export= or, for vanilla SAM 2, backbone=")
        if self.filter not in FILTERS:
            raise RuacError(f"filter: {self.filter!r}, expected {' or '.join(FILTERS)}")
        if self.labelled is None and not 0 < self.fraction < 1:
            raise RuacError(f"fraction: {self.fraction}, expected a share between 0 and 1")
        if self.grid < 1 or self.limit < 0 or self.overlays < 0:
            raise RuacError("expected grid of at least 1, limit and overlays of at least 0")


def run_pseudo_label(config: PseudoLabelConfig) -> Path:
    """Calibrate, label and write to the folder ``config.out``; returns it.

    ``labels/STEM.png`` (value = class, 255 = ignored), ``classes.txt``, ``statistics.csv``, ``overlays/STEM.png`` and
    ``record.json``, all at once when all is done. Raises `RuacError` for unusable data, prompts, too few labelled
    pictures, or a folder that holds labels already, such as the source's own, and nothing is written.
    """
    out = Path(config.out)
    for name in ("labels", "overlays", RECORD):
        if (out / name).exists():
            raise RuacError(f"{out}: already holds {name}; expected another out=")
    dataset = ClassFolder(config.source, background=config.background)
    asked = None if config.prompts in KINDS else read_prompts(config.prompts, dataset)
    labelled, rest = split_places(dataset, config)
    check_enough(len(labelled), config.alpha, "labelled subset")
    for place in labelled:
        if dataset.labels(place) is None:
            raise RuacError(f"{dataset.path(place)}: has no labels, but is in the labelled subset")
    for place in rest:
        dataset.labels(place)  # a broken one is said now, and not after hours
    model = open_model(config.export, config.backbone)
    device = PartialState(cpu=config.cpu).device
    predictor = Predictor(model, device=device)

    def probability(place: int, sample: ClassedSample) -> np.ndarray:
        given = annotated_prompts(sample, config.prompts) if asked is None else asked.get(dataset.files[place], [])
        options = {"background": config.background, "weigh": config.weigh}
        return class_probability(predictor, sample.image, given, len(dataset.names), **options)

    thresholds = calibrate(dataset, labelled, probability, config)
    statistics = LabelStatistics(dataset.names)
    record = {
        "config": asdict(config),
        "model": bounds_identity(model),
        "labelled": [dataset.files[place] for place in labelled],
        "images": len(rest),
        "thresholds": {
            "regions": thresholds.regions,
            "fallback": thresholds.fallback,
            "least": float(thresholds.values.min()),
            "most": float(thresholds.values.max()),
        },
    }
    with atomic_folder(out, last=RECORD) as folder:
        for number, place in enumerate(track(rest, description="labels")):
            sample = dataset[place]
            maps = probability(place, sample)
            kept = kept_labels(maps, thresholds, filter=config.filter, background=config.background)
            plain = kept_labels(maps, None, filter="none", background=config.background)
            statistics.add(plain, kept, prediction_sets(maps, thresholds), sample.labels)
            stem = Path(dataset.files[place]).stem
            save_png(folder / "labels" / f"{stem}.png", kept)
            if number < config.overlays:
                save_png(folder / "overlays" / f"{stem}.png", overlay(sample.image, plain, kept))
        table = statistics.table()
        write_text(folder / "classes.txt", "".join(f"{name}\n" for name in dataset.names))
        write_text(folder / "statistics.csv", table.to_csv(index=False))
        record |= {"statistics": json.loads(table.to_json(orient="records")), "environment": environment()}
        write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
    return out


def split_places(dataset: ClassFolder, config: PseudoLabelConfig) -> tuple[list[int], list[int]]:
    """Places of the labelled pictures, and of those to label."""
    if config.labelled is not None:
        labelled = dataset.places(config.labelled)
    else:
        labelled = draw_places(len(dataset), max(1, round(config.fraction * len(dataset))), config.seed)
    wanted = range(len(dataset)) if config.unlabelled is None else dataset.places(config.unlabelled)
    rest = [place for place in wanted if place not in set(labelled)][: config.limit or None]
    if not rest:
        raise RuacError(f"{config.source}: every picture is in the labelled subset, none is left to label")
    return labelled, rest


def calibrate(
    dataset: ClassFolder,
    places: list[int],
    probability: Callable[[int, ClassedSample], np.ndarray],
    config: PseudoLabelConfig,
) -> PixelThresholds:
    """Thresholds from the labelled pictures, each read at the middles of the grid's cells."""
    scores, labels = [], []
    for place in track(places, description="labelled pictures"):
        sample = dataset[place]
        rows, columns = ((np.arange(config.grid) + 0.5) * n / config.grid for n in sample.labels.shape)
        cells = np.ix_(rows.astype(int), columns.astype(int))
        truth = sample.labels[cells]
        scores.append(pixel_scores(probability(place, sample)[:, cells[0], cells[1]], truth, dataset.names))
        labels.append(truth)
    return fit_pixel_thresholds(
        np.stack(scores), np.stack(labels), dataset.names, config.alpha, config.regions, each=config.each
    )


def overlay(image: np.ndarray, plain: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Picture, labels before and labels after the filter side by side, ``uint8 [H, 3 W, 3]``; ignored pixels black."""
    panels = [image]
    for labels in (plain, kept):
        painted = image.copy()
        for k in np.setdiff1d(np.unique(labels), [0, IGNORE]):
            painted = paint_mask(painted, labels == k, color=_color(int(k)), opacity=0.6)
        painted[labels == IGNORE] = 0
        panels.append(painted)
    return np.concatenate(panels, axis=1)


def _color(k: int) -> tuple[float, float, float]:
    """A colour per class, neighbours far apart on the circle of hues."""
    hue = (k * 0.618034) % 1
    return tuple(float(np.clip(abs((hue * 6 + shift) % 6 - 3) - 1, 0, 1)) for shift in (0, 4, 2))
