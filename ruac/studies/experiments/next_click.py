"""How many clicks does it take until a mask is good, if the model says where to click?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track
from scipy import ndimage

from ruac.backbone import Features
from ruac.backbone.outputs import as_prompt, best_candidate, of_token, upsample
from ruac.backbone.prompts import Prompts, central_correction, central_pixel
from ruac.base.errors import RuacError
from ruac.data.identity import dataset_hash
from ruac.data.sample import MaskDataset, Sample
from ruac.evaluation.metrics import jaccard
from ruac.evaluation.score import Encodings, objects_of
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.open import open_domains
from ruac.evaluation.sweep.opened import load_models
from ruac.inference.answer import Maps
from ruac.inference.export import fingerprint
from ruac.inference.look_mean import look_again
from ruac.inference.model import UncertainSam
from ruac.inference.next_click import next_click
from ruac.inference.predictor import DEFAULT
from ruac.inference.second_look import Question
from ruac.studies.experiments.outputs import write_outputs

TARGETS = (85, 90)  # % IoU
AFTER = (1, 2, 3, 5, 10, 20)  # clicks whose IoU is written


@dataclass
class NextClickConfig:
    """domains: as in a sweep. models: who says where, with looks or without. rules: keys of `RULES`. images: per data
    set, spread evenly (0: all). objects: most per image, the first ones. clicks: most per object. looked: the masks
    that are judged and clicked on are those of the looks, as `Predictor.predict(looks=...)` returns them, and not
    SAM 2's own."""

    domains: list[str] = field(default_factory=list)
    models: list[ModelConfig] = field(default_factory=lambda: [ModelConfig("ruac", export=str(DEFAULT))])
    rules: list[str] = field(default_factory=lambda: list(RULES))
    out: str = "runs/next_click"
    images: int = 4
    objects: int = 2
    clicks: int = 20
    looked: bool = False
    seed: int = 0

    def validate(self) -> None:
        if self.looked and not all(model.looks for model in self.models):
            raise RuacError("looked: expected models with looks=")
        if not self.domains or not self.models:
            raise RuacError("expected at least one entry under domains and under models")
        if unknown := [rule for rule in self.rules if rule not in RULES]:
            raise RuacError(f"rules: {unknown[0]!r}, expected some of {', '.join(RULES)}")
        if self.images < 0 or self.objects < 1 or self.clicks < 1:
            raise RuacError("expected images of at least 0, objects and clicks of at least 1")


@dataclass(frozen=True, eq=False)
class View:
    """What a rule may look at. mask: ``bool [H, W]``, the answer's. clicked: ``[P, 2]`` (x, y). truth: for the oracles
    alone. read: probability and uncertainty ``[H, W]``, made only for the rules that look at them."""

    mask: np.ndarray
    clicked: np.ndarray
    truth: np.ndarray
    rng: np.random.Generator
    read: Callable[[], tuple[np.ndarray, np.ndarray]]

    def unclicked(self) -> np.ndarray:
        free = np.ones(self.mask.shape, bool)
        x, y = self.clicked.astype(int).T
        free[y, x] = False
        return free


def _expected(view: View) -> tuple[int, int]:
    click = next_click(view.mask, view.read()[0], view.clicked)
    return _peak(view) if click is None else click.point


def _region(view: View, *, least: float = 0.5) -> tuple[int, int]:
    """As the oracle does, on the error that is expected: the deepest pixel of a connected region.

    Regions are of pixels that err with a probability above `least`; the one with the most expected errors counts.
    Where there is none, as `_expected`.
    """
    probability = view.read()[0]
    wrong = np.where(view.mask, 1 - probability, probability)
    parts, count = ndimage.label((wrong > least) & view.unclicked())
    if not count:
        return _expected(view)
    best = 1 + int(np.argmax(ndimage.sum(wrong, parts, np.arange(1, count + 1))))
    depth = ndimage.distance_transform_edt(np.pad(parts == best, 1))[1:-1, 1:-1]
    return _place(depth.argmax(), view)


def _peak(view: View) -> tuple[int, int]:
    """The most uncertain pixel."""
    return _place(np.where(view.unclicked(), view.read()[1], -1.0).argmax(), view)


def _boundary(view: View) -> tuple[int, int]:
    """The pixel of the mask's contour that lies farthest from all clicks: knows the mask and nothing else."""
    contour = view.mask & ~ndimage.binary_erosion(view.mask, border_value=1)
    if not contour.any():
        return _random(view)
    return _place(np.where(contour, ndimage.distance_transform_edt(view.unclicked()), -1.0).argmax(), view)


def _random(view: View) -> tuple[int, int]:
    """Any pixel in the mask's box, grown by a quarter of its sides; of the picture if the mask is empty."""
    region = np.zeros(view.mask.shape, bool)
    if view.mask.any():
        (top, bottom), (left, right) = ((np.flatnonzero(view.mask.any(axis=axis))[[0, -1]]) for axis in (1, 0))
        down, across = (bottom - top) // 4 + 1, (right - left) // 4 + 1
        region[max(top - down, 0) : bottom + down + 1, max(left - across, 0) : right + across + 1] = True
    return _any_of((region if region.any() else ~region) & view.unclicked(), view)


def _random_error(view: View) -> tuple[int, int]:
    return _any_of((view.mask ^ view.truth) & view.unclicked(), view)


def _oracle(view: View) -> tuple[int, int]:
    """The centre of the larger error region, as in the evaluation."""
    free = view.unclicked()
    place = central_correction(view.truth & (free | view.mask), view.mask & (free | view.truth))
    return _random(view) if place is None else place[:2]


RULES: dict[str, Callable[[View], tuple[int, int]]] = {
    "expected": _expected,
    "region": _region,
    "region_third": partial(_region, least=1 / 3),
    "peak": _peak,
    "boundary": _boundary,
    "random": _random,
    "random_error": _random_error,
    "oracle": _oracle,
}
"""The last two see the truth; of the others it is known only what the person who clicks says of the pixel."""


def _place(flat: int, view: View) -> tuple[int, int]:
    y, x = divmod(int(flat), view.mask.shape[1])
    return x, y


def _any_of(region: np.ndarray, view: View) -> tuple[int, int]:
    candidates = np.flatnonzero(region)
    return _place(view.rng.choice(candidates) if len(candidates) else 0, view)


@torch.no_grad()
def click_through(
    model: UncertainSam, sample: Sample, features: Features, rule: str, config: NextClickConfig
) -> np.ndarray:
    """IoU of each object after each click, ``float64 [N, clicks]``; the first is the object's centre for all rules.

    A mask that reaches the last of `TARGETS` is not clicked further: its IoU is repeated.
    """
    count, size, side = len(sample.masks), sample.masks.shape[1:], model.image_size
    points = np.array([[central_pixel(mask)] for mask in sample.masks], dtype=float)  # [N, P, 2]
    labels = np.ones((count, 1), dtype=int)
    seeds = [hashlib.sha256(f"{config.seed}/{sample.record.id}/{k}".encode()) for k in sample.record.object_ids]
    rngs = [np.random.default_rng(int.from_bytes(seed.digest()[:8], "big")) for seed in seeds]
    previous, found = None, np.ones((count, config.clicks))
    active = np.arange(count)
    for click in range(config.clicks):
        scaled = torch.tensor(points[active] * (side / size[1], side / size[0]), dtype=torch.float32)
        prompts = Prompts(scaled, torch.tensor(labels[active]), previous)
        prediction = model.decode(features.expand(len(active)), prompts)
        choice = best_candidate(prediction.iou)
        logits = of_token(prediction.logits, choice)
        masks = (upsample(logits, size)[:, 0] > 0).numpy()
        question = Question(sample.image, prompts, prediction, choice, masks)
        maps = cache(partial(_maps, model, question))
        if config.looked:
            looked = look_again(model, model.looks, question)
            masks, maps = looked.masks, lambda maps=looked.maps: maps
        found[active, click:] = jaccard(masks, sample.masks[active])[:, None]
        still = found[active, click] < TARGETS[-1] / 100
        if not still.any() or click + 1 == config.clicks:
            break
        new = np.zeros((count, 2))
        for row in np.flatnonzero(still):
            n = active[row]

            def read(row: int = row, maps: Callable[[], Maps] = maps) -> tuple[np.ndarray, np.ndarray]:
                return maps().probability[row, 0].numpy(), maps().total[row, 0].numpy()

            view = View(masks[row], points[n], sample.masks[n], rngs[n], read)
            new[n] = RULES[rule](view)
        active, previous = active[still], as_prompt(logits)[torch.from_numpy(still)]
        x, y = new.astype(int).T
        points = np.concatenate([points, new[:, None]], axis=1)
        labels = np.concatenate([labels, sample.masks[np.arange(count), y, x].astype(int)[:, None]], axis=1)
    return found


def _maps(model: UncertainSam, question: Question) -> Maps:
    if model.looks is not None:
        return look_again(model, model.looks, question).maps
    return question.prediction.maps(question.choice[:, None], question.image.shape[:2])


def measure(dataset: MaskDataset, models: dict[str, UncertainSam], config: NextClickConfig) -> list[dict]:
    """One row per object, model and rule."""
    rows = []
    count = min(config.images or len(dataset), len(dataset))
    for place in np.linspace(0, len(dataset) - 1, count).astype(int):
        sample = objects_of(dataset[place], slice(0, config.objects))
        encodings = Encodings(sample.image)
        for name, model in models.items():
            for rule in config.rules:
                ious = click_through(model, sample, encodings(model.backbone), rule, config)
                for key, row in zip(sample.record.object_ids, ious, strict=True):
                    entry = {"domain": dataset.name, "image": sample.record.id, "object": key}
                    entry |= {"model": name, "rule": rule}
                    entry |= {f"noc{target}": clicks_to(row, target / 100) for target in TARGETS}
                    entry |= {f"reached{target}": bool(row.max() >= target / 100) for target in TARGETS}
                    entry |= {f"iou{n}": float(row[min(n, len(row)) - 1]) for n in AFTER}
                    rows.append(entry)
    return rows


def clicks_to(ious: np.ndarray, target: float) -> int:
    """Number of the first click after which the IoU is at least `target`; of all clicks where it never is."""
    reached = np.flatnonzero(ious >= target)
    return int(reached[0]) + 1 if len(reached) else len(ious)


def run_next_click(config: NextClickConfig) -> Path:
    """Run the experiment and print its table; returns the folder. Raises `RuacError` for unusable data or models."""
    names = [entry.name for entry in config.models]
    models = load_models(SweepConfig(models=config.models), PartialState(cpu=True).device)
    models = {name: models[name] for name in names}  # without the vanilla that a sweep adds
    domains = open_domains(config.domains)
    rows = [row for data in track(domains.values(), "domains") for row in measure(data, models, config)]
    objects = pd.DataFrame(rows)
    numbers = [column for column in objects.columns if column.startswith(("noc", "reached", "iou"))]
    groups = objects.groupby(["domain", "model", "rule"], sort=False)
    table = groups[numbers].mean().reset_index()
    table.insert(3, "objects", groups.size().to_numpy())
    print(table.groupby(["model", "rule"], sort=False)[numbers].mean().round(3).to_string())
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for (model, rule), some in table.groupby(["model", "rule"], sort=False):
        axes.plot(AFTER, some[[f"iou{n}" for n in AFTER]].mean(), "o-", label=f"{model}, {rule}")
    axes.set_xlabel("clicks")
    axes.set_ylabel("IoU, mean over data sets")
    axes.legend()
    facts = {
        "models": {name: fingerprint(model) for name, model in models.items()},
        "data": {name: dataset_hash(data) for name, data in domains.items()},
    }
    return write_outputs(config.out, "next_click", config=config, table=table, figure=figure, facts=facts)
