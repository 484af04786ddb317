"""Bounds of a model's masks, fitted on source pictures through the prompts of a sweep."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from accelerate import PartialState
from rich.progress import track

from ruac.backbone import load_backbone
from ruac.base.errors import RuacError
from ruac.base.provenance import environment
from ruac.conformal.bounds import BoundsConfig, fit_bounds
from ruac.conformal.mask_losses import object_losses
from ruac.conformal.quantile import check_alpha, check_enough
from ruac.data.identity import hash_names, image_names
from ruac.data.open import open_dataset, place_and_split
from ruac.data.sample import MaskDataset, Sample
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Encodings, answer_image, blocks, objects_of
from ruac.inference.bounds import bounds_identity, bounds_path
from ruac.inference.export import load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.second_look import LooksConfig


@dataclass
class ConformalConfig:
    """source: pictures that the model was not trained on, ``FOLDER`` or ``FOLDER@SPLIT``, and never a domain of a
    sweep. Exactly one of export, a folder of ruac export, and backbone, for vanilla SAM 2; or an export with the
    backbone of a head-only export. alpha: the share that may be wrong, of which the file shows the thresholds; it
    holds all others as well. out: a JSON file or a folder (default: inside the export). images: how many, drawn by
    `seed` (0: all). looks: further looks, if not those of the export. bounds: what is promised. protocol: as in a
    sweep; the promise is for masks after these prompts."""

    source: str = "???"
    export: str | None = None
    backbone: str | None = None
    alpha: float = 0.1
    out: str | None = None
    images: int = 0
    seed: int = 0
    cpu: bool = False
    looks: list[str] = field(default_factory=list)
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        check_alpha(self.alpha)
        if self.export is None and self.backbone is None:
            raise RuacError("conformal: expected export= or, for vanilla SAM 2, backbone=")
        if self.export is None and self.out is None:
            raise RuacError("conformal: out= is missing; only an export has a place of its own for the file")
        if self.looks:
            LooksConfig(looks=self.looks).validate()
        if self.images < 0:
            raise RuacError(f"images: {self.images}, expected at least 0")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")


def run_conformal(config: ConformalConfig) -> Path:
    """Fit and write the file; returns its path. Raises `RuacError` for unusable data, a model or too few images."""
    model = open_model(config.export, config.backbone)
    if config.looks:
        model = model.looking(LooksConfig(looks=config.looks))
    model = model.eval().to(PartialState(cpu=config.cpu).device)
    dataset = dataset_of(config.source)
    places = draw_places(len(dataset), config.images, config.seed)
    check_enough(len(places), config.alpha, config.source)
    shown = track(places, description="source images")
    losses = [image_losses(model, dataset[place], config.protocol) for place in shown]
    missed, impurity = (np.array(column) for column in zip(*losses, strict=True))
    every = image_names(dataset)
    record = {
        "source": {"name": dataset.name, "sha256": hash_names([every[place] for place in places])},
        "seed": config.seed,
        "protocol": asdict(config.protocol),
        "environment": environment(),
    }
    bounds = fit_bounds(missed, impurity, config.bounds, identity=bounds_identity(model), record=record)
    return bounds.save(bounds_path(config.out or config.export), alpha=config.alpha)


def open_model(export: str | None, backbone: str | None) -> UncertainSam:
    """An export, or vanilla SAM 2, on the CPU and in eval mode."""
    if export is not None:
        return load_exported(export, backbone=backbone)
    return UncertainSam(load_backbone(backbone), None).eval()


def draw_places(total: int, wanted: int, seed: int) -> list[int]:
    """`wanted` places below `total` (0: all), without repeats, in rising order."""
    if not wanted or wanted >= total:
        return list(range(total))
    return sorted(np.random.default_rng(seed).choice(total, wanted, replace=False).tolist())


def image_losses(
    model: UncertainSam, sample: Sample, protocol: ProtocolConfig, encodings: Encodings | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Missed share and impurity of a picture at all thresholds, the means over its objects; float64 ``[L]`` each."""
    parts = [object_losses(*pair) for pair in answered(model, sample, protocol, encodings)]
    return tuple(np.concatenate(column).mean(0) for column in zip(*parts, strict=True))


def answered(
    model: UncertainSam, sample: Sample, protocol: ProtocolConfig, encodings: Encodings | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Probability ``float32 [N, H, W]`` and truth of a picture's objects, some at a time."""
    encodings = Encodings(sample.image) if encodings is None else encodings
    for block in blocks(len(sample.masks), model.backbone):
        part = objects_of(sample, block)
        answer = answer_image({"": model}, part, protocol, encodings=encodings)[""]
        yield answer.probability.cpu().numpy(), part.masks


def dataset_of(entry: str) -> MaskDataset:
    """``FOLDER`` or ``FOLDER@SPLIT``, opened."""
    folder, split = place_and_split(entry)
    return open_dataset(folder, split=split)
