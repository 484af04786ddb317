"""Whose error is u correlated with? PCC takes a model's own |p - M|, which a head moves together with u."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from matplotlib.figure import Figure

from ruac.base.errors import RuacError
from ruac.data.identity import dataset_hash
from ruac.data.sample import MaskDataset
from ruac.evaluation.metrics import object_band
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.score import Encodings, answer_image, blocks, objects_of
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.methods import is_vanilla
from ruac.evaluation.sweep.open import open_domains
from ruac.evaluation.sweep.opened import load_models
from ruac.inference.export import fingerprint
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import DEFAULT
from ruac.studies.experiments.outputs import write_outputs


@dataclass
class OwnErrorConfig:
    """domains: as in a sweep. models: compared with vanilla, which is added; masks of all have to be SAM 2's own.
    images: per data set, spread evenly (0: all)."""

    domains: list[str] = field(default_factory=list)
    models: list[ModelConfig] = field(default_factory=lambda: [ModelConfig("ruac", export=str(DEFAULT))])
    out: str = "runs/own_error"
    images: int = 40
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.domains or not self.models:
            raise RuacError("expected at least one entry under domains and under models")
        if self.images < 0:
            raise RuacError(f"images: {self.images}, expected at least 0")


def correlations(u: np.ndarray, p: np.ndarray, plain: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Pearson correlations over pixels ``[P]`` of the uncertainty u of a model with probability p.

    plain: vanilla's probability. own: with |p - M|, which is what PCC means; plain: with vanilla's |p - M|; mistake:
    with "this pixel is wrong"; right, wrong: with |p - M| among pixels of either kind, where both are functions of p
    alone and rise together, or one rises as the other falls. error_wrong, u_wrong: means over wrong pixels.
    """
    error, before, mistake = np.abs(p - target), np.abs(plain - target), (p > 0.5) != target
    return {
        "own": _pearson(u, error),
        "plain": _pearson(u, before),
        "mistake": _pearson(u, mistake),
        "right": _pearson(u[~mistake], error[~mistake]),
        "wrong": _pearson(u[mistake], error[mistake]),
        "error_wrong": float(error[mistake].mean()),
        "u_wrong": float(u[mistake].mean()),
        "share_wrong": float(mistake.mean()),
    }


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.astype(np.float64), b.astype(np.float64))[0, 1]) if len(a) > 1 else float("nan")


@torch.no_grad()
def compare(dataset: MaskDataset, models: dict[str, UncertainSam], config: OwnErrorConfig) -> list[dict]:
    """One row per model, over the pixels of all object bands of the images taken."""
    count = min(config.images or len(dataset), len(dataset))
    plain = next(name for name, model in models.items() if is_vanilla(model))
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in models}
    targets = []
    for place in np.linspace(0, len(dataset) - 1, count).astype(int):
        sample = dataset[place]
        encodings = Encodings(sample.image)
        backbones = (model.backbone for model in models.values())
        for block in blocks(len(sample.masks), *backbones, pixels=sample.masks[0].size):
            part = objects_of(sample, block)
            band = object_band(part.masks)
            targets.append(part.masks[band])
            answers = answer_image(models, part, config.protocol, encodings=encodings)
            for name, answer in answers.items():
                total = next(iter(answer.uncertainty.values()))
                found[name].append(tuple(values.cpu().numpy()[band] for values in (total, answer.probability)))
    target = np.concatenate(targets)
    joined = {name: [np.concatenate(column) for column in zip(*parts, strict=True)] for name, parts in found.items()}
    base = joined[plain][1]
    return [
        {"domain": dataset.name, "model": name, "images": count, "pixels": len(target)}
        | correlations(u, p, base, target)
        for name, (u, p) in joined.items()
    ]


def run_own_error(config: OwnErrorConfig) -> Path:
    """Run the experiment and print its table; returns the folder. Raises `RuacError` for unusable data or models."""
    models = load_models(SweepConfig(models=config.models), PartialState(cpu=config.cpu).device)
    for name, model in models.items():
        if model.changes_masks:
            raise RuacError(f"model {name!r}: has masks of its own, expected those of SAM 2")
    domains = open_domains(config.domains)
    table = pd.DataFrame([row for data in domains.values() for row in compare(data, models, config)])
    print(table.round(4).to_string(index=False))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for measure in ("own", "plain", "mistake"):
        means = table.groupby("model", sort=False)[measure].mean()
        axes.plot(means.index, means, "o-", label=measure)
    axes.set_ylabel("Pearson correlation with u, mean over data sets")
    axes.legend()
    facts = {
        "models": {name: fingerprint(model) for name, model in models.items()},
        "data": {name: dataset_hash(data) for name, data in domains.items()},
    }
    return write_outputs(config.out, "own_error", config=config, table=table, figure=figure, facts=facts)
