"""Do conformal masks keep their promise on held-out source pictures, and what is left of it in other domains?

Definitions and how to read the numbers: docs/conformal.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track

from ruac.base.errors import RuacError
from ruac.conformal.bounds import BoundsConfig, fit_bounds
from ruac.conformal.mask_losses import INNER, OUTER, never_growing, object_errors, object_sizes
from ruac.conformal.quantile import check_alpha, check_enough
from ruac.conformal.risk import control_weighted
from ruac.conformal.shift import effective_count, likelihood_ratios
from ruac.data.identity import dataset_hash
from ruac.data.sample import MaskDataset
from ruac.evaluation.conformal.fit import answered, dataset_of, draw_places, open_model
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Encodings
from ruac.evaluation.sweep.open import open_domains
from ruac.inference.bounds import bounds_identity
from ruac.inference.model import UncertainSam
from ruac.studies.experiments.outputs import write_outputs


@dataclass
class ConformalShiftConfig:
    """source: pictures that the model was not trained on, ``FOLDER@SPLIT``; seen: some that it was trained on, if their
    fit is to be shown as well. domains: as in a sweep. export, backbone: as in `ConformalConfig`. alphas: risks.
    images, seen_images: of source and of seen (0: all). limit: of each domain (0: all). unlabelled: of each domain, of
    whom features alone are used, for weights. splits: random halves of the source, one fitted, the other tested."""

    source: str = "???"
    seen: str | None = None
    domains: list[str] = field(default_factory=list)
    export: str | None = None
    backbone: str | None = None
    alphas: list[float] = field(default_factory=lambda: [0.1])
    images: int = 0
    seen_images: int = 300
    limit: int = 0
    unlabelled: int = 60
    splits: int = 500
    seed: int = 0
    cpu: bool = False
    out: str = "runs/conformal_shift"
    bounds: BoundsConfig = field(default_factory=BoundsConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if self.export is None and self.backbone is None:
            raise RuacError("conformal_shift: expected export= or, for vanilla SAM 2, backbone=")
        if not self.alphas:
            raise RuacError("alphas: expected at least one")
        for alpha in self.alphas:
            check_alpha(alpha)
        for name in ("images", "seen_images", "limit", "unlabelled"):
            if getattr(self, name) < 0:
                raise RuacError(f"{name}: {getattr(self, name)}, expected at least 0")
        if self.splits < 1:
            raise RuacError(f"splits: {self.splits}, expected at least 1")


@dataclass(frozen=True)
class Measured:
    """Of n pictures: losses ``[n, L]`` and the impurity itself, means over objects; features ``[n, C]``; per object,
    sizes ``[N, L]`` and its picture ``[N]``."""

    missed: np.ndarray
    impurity: np.ndarray
    impure: np.ndarray
    features: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    image: np.ndarray

    def __len__(self) -> int:
        return len(self.missed)

    def of(self, which: np.ndarray) -> Measured:
        """Some of the pictures, in the order of `which`."""
        place = np.full(len(self), -1)
        place[which] = np.arange(len(which))
        own = place[self.image] >= 0
        images = (values[which] for values in (self.missed, self.impurity, self.impure, self.features))
        return Measured(*images, self.outer[own], self.inner[own], place[self.image][own])


def measure(model: UncertainSam, dataset: MaskDataset, places: list[int], protocol: ProtocolConfig) -> Measured:
    """Prompt the objects of some pictures and keep what depends on a threshold, at all of them."""
    rows: list[tuple] = []
    for image, place in enumerate(track(places, description=dataset.name)):
        sample = dataset[place]
        encodings = Encodings(sample.image)
        parts = [(*object_errors(*pair), *object_sizes(*pair)) for pair in answered(model, sample, protocol, encodings)]
        missed, impure, outer, inner = (np.concatenate(column) for column in zip(*parts, strict=True))
        kept = outer.astype(np.float32), inner.astype(np.float32), np.full(len(outer), image)
        means = (part.mean(0) for part in (missed, never_growing(impure), impure))
        rows.append((*means, pooled(encodings, model), *kept))
    missed, impurity, impure, features, *objects = zip(*rows, strict=True)
    return Measured(*map(np.stack, (missed, impurity, impure, features)), *map(np.concatenate, objects))


def pooled(encodings: Encodings, model: UncertainSam) -> np.ndarray:
    """Mean of a picture's embedding over its places, ``[C]``."""
    return encodings(model.backbone).embedding[0].mean(dim=(1, 2)).float().cpu().numpy()


def scores_at(measured: Measured, outer: np.ndarray, inner: np.ndarray) -> dict[str, float]:
    """Mean coverage and purity over pictures, median sizes over objects, and shares of trivial answers.

    outer, inner: places of the thresholds, one or one of each picture.
    """
    outer, inner = (np.broadcast_to(place, len(measured)) for place in (outer, inner))
    rows, own = np.arange(len(measured)), np.arange(len(measured.image))
    return {
        "coverage": 1 - measured.missed[rows, outer].mean(),
        "purity": 1 - measured.impure[rows, inner].mean(),
        "outer_size": float(np.median(measured.outer[own, outer[measured.image]])),
        "inner_size": float(np.median(measured.inner[own, inner[measured.image]])),
        "whole_picture": float((outer == len(OUTER) - 1).mean()),
        "empty": float((inner == len(INNER) - 1).mean()),
    }


def fitted_places(measured: Measured, which: np.ndarray, config: BoundsConfig, alpha: float) -> tuple[int, int]:
    """Places of the thresholds fitted to some of the pictures."""
    found = fit_bounds(measured.missed[which], measured.impurity[which], config).at(alpha)
    return int((found.outer == OUTER).argmax()), int((found.inner == INNER).argmax())


def halves(source: Measured, config: ConformalShiftConfig, alpha: float) -> dict[str, float]:
    """Means over random halves of the source: fitted on one, scored on the other; and how much one half differs."""
    rng, found = np.random.default_rng(config.seed), []
    for _ in range(config.splits):
        order = rng.permutation(len(source))
        fit, test = order[: len(order) // 2], order[len(order) // 2 :]
        outer, inner = fitted_places(source, fit, config.bounds, alpha)
        found.append(scores_at(source.of(test), outer, inner))
    every = pd.DataFrame(found)
    return every.mean().to_dict() | {f"{name}_sd": every[name].std() for name in ("coverage", "purity")}


def weighted_scores(
    source: Measured, target: Measured, features: np.ndarray, alpha: float, seed: int
) -> dict[str, float]:
    """As `scores_at`, with thresholds of each target picture from source pictures weighted by likelihood ratios.

    features ``[m, C]``: of the domain's pictures without their labels, those of `target` first.
    """
    own, theirs = likelihood_ratios(source.features, features, seed=seed)
    places = np.array(
        [
            [
                _or_safest(control_weighted(losses, own, ratio, alpha), losses)
                for losses in (source.missed, source.impurity)
            ]
            for ratio in theirs[: len(target)]
        ]
    )
    return scores_at(target, *places.T) | {"effective": effective_count(own)}


def _or_safest(place: int | None, losses: np.ndarray) -> int:
    return losses.shape[1] - 1 if place is None else place


def run_conformal_shift(config: ConformalShiftConfig) -> Path:
    """Measure source and domains, fit, and print the table; returns the folder. Raises `RuacError` as a sweep does."""
    model = open_model(config.export, config.backbone).to(PartialState(cpu=config.cpu).device)
    sets = {"source": dataset_of(config.source)}
    if config.seen:
        sets["seen"] = dataset_of(config.seen)
    domains = open_domains(config.domains)
    found = {}
    for name, dataset in sets.items():
        wanted = config.seen_images if name == "seen" else config.images
        places = draw_places(len(dataset), wanted, config.seed)
        check_enough(len(places) // 2, min(config.alphas), f"{dataset.name}: half of the split")
        found[name] = measure(model, dataset, places, config.protocol)
    source, rows = found["source"], []
    for alpha in config.alphas:
        rows.append({"set": "held-out source", "fit": "the other half", "alpha": alpha} | halves(source, config, alpha))
        if "seen" in found:
            seen = fitted_places(found["seen"], np.arange(len(found["seen"])), config.bounds, alpha)
            rows.append(
                {"set": "held-out source", "fit": "training pictures", "alpha": alpha} | scores_at(source, *seen)
            )
    for name, dataset in domains.items():
        places = draw_places(len(dataset), config.limit, config.seed)
        target = measure(model, dataset, places, config.protocol)
        features = _features(model, dataset, places, target, config)
        for alpha in config.alphas:
            plain = fitted_places(source, np.arange(len(source)), config.bounds, alpha)
            about = {"set": name, "alpha": alpha, "images": len(target)}
            rows.append(about | {"fit": "source"} | scores_at(target, *plain))
            if config.bounds.level == "share" and not config.bounds.delta:
                mended = weighted_scores(source, target, features, alpha, config.seed)
                rows.append(about | {"fit": "source, weighted"} | mended)
    table = pd.DataFrame(rows)
    print(table.round(3).to_string(index=False))
    facts = {
        "model": bounds_identity(model),
        "data": {d.name: dataset_hash(d) for d in [*sets.values(), *domains.values()]},
        "objects": {name: len(m.image) for name, m in found.items()},
    }
    return write_outputs(config.out, "conformal_shift", config=config, table=table, figure=draw(table), facts=facts)


def _features(
    model: UncertainSam, dataset: MaskDataset, places: list[int], target: Measured, config: ConformalShiftConfig
) -> np.ndarray:
    """Features of `target`, and of further pictures of its domain up to `unlabelled`."""
    others = [place for place in range(len(dataset)) if place not in set(places)]
    others = [others[k] for k in draw_places(len(others), max(config.unlabelled - len(places), 1), config.seed)]
    more = [pooled(Encodings(dataset[place].image), model) for place in others]
    return np.concatenate([target.features, np.stack(more)]) if more else target.features


def draw(table: pd.DataFrame) -> Figure:
    """Coverage of outer and purity of inner masks per domain at the first alpha, plain and weighted."""
    table = table[table.alpha == table.alpha.iloc[0]]
    shown = table[~table.set.eq("held-out source")]
    names = list(dict.fromkeys(shown.set))
    figure = Figure(figsize=(9, 1.5 + 0.24 * len(names)), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("coverage", "purity"), strict=True):
        for fit, own in shown.groupby("fit", sort=False):
            axes.plot(100 * own[key], [names.index(name) for name in own.set], "o", label=fit, alpha=0.8)
        axes.axvline(100 * (1 - table.alpha.iloc[0]), color="grey", linewidth=0.8, label="promised")
        axes.axvline(100 * table[key].iloc[0], color="black", linestyle=":", linewidth=0.8, label="held-out source")
        axes.set_xlabel(f"{key}, %")
    axes.legend(fontsize=7)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    return figure
