"""How good a mask is, fitted on source images: monotone in everything that is known of it (ours)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from rich.progress import track
from scipy.optimize import minimize
from torch import Tensor

from ruac.backbone import Features
from ruac.base.errors import RuacError
from ruac.base.provenance import environment
from ruac.data.identity import dataset_hash
from ruac.data.open import open_dataset, place_and_split
from ruac.data.sample import MaskDataset, Sample
from ruac.evaluation.metrics import jaccard
from ruac.evaluation.protocol import ProtocolConfig, Round, prompt_objects
from ruac.evaluation.score import Encodings, blocks, objects_of
from ruac.inference.export import load_exported
from ruac.inference.look_mean import look_again
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import DEFAULT
from ruac.inference.reliability import (
    NAME,
    Reader,
    Reliability,
    feature_logit,
    mask_features,
    reliability_identity,
    save_reliability,
)
from ruac.inference.second_look import LooksConfig, Question

CURVE = 200  # points of the curve of risk


@dataclass
class ReliabilityConfig:
    """source: held-out source images, ``FOLDER`` or ``FOLDER@SPLIT``; never a domain of the sweep. export, backbone:
    the model. looks: kinds of answers to fit for, each a list joined by commas, such as ``zoom``; "" is a plain one.
    images: spread evenly over the split (0: all). penalty: of the squared weights, per mask. protocol: as in the
    sweep; the answers after every click are masks of their own."""

    source: str = "???"
    export: str = str(DEFAULT)
    backbone: str | None = None
    looks: list[str] = field(default_factory=lambda: [""])
    out: str = "runs/reliability"
    images: int = 0
    penalty: float = 1e-4
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if self.images < 0 or self.penalty < 0:
            raise RuacError(f"images {self.images}, penalty {self.penalty}: expected at least 0")
        if self.protocol.next_click == "replay":
            raise RuacError("protocol.next_click: replay, expected own_error: there are no clicks to repeat")
        for looks in self.looks:
            if looks:
                looks_of(looks).validate()


def looks_of(key: str) -> LooksConfig | None:
    """The looks of a key of `Reliability.readers`."""
    return LooksConfig(looks=key.split(",")) if key else None


def run_reliability(config: ReliabilityConfig) -> Path:
    """Fit on the source and write ``config.out/reliability.json``, for the export's folder or a `Predictor`.

    Raises `RuacError` for unusable data or models.
    """
    folder, split = place_and_split(config.source)
    dataset = open_dataset(folder, split=split)
    model = load_exported(config.export, backbone=config.backbone).to(PartialState(cpu=config.cpu).device)
    readers, facts = {}, {}
    for key in config.looks:
        features, iou = gather(model, dataset, config.protocol, looks_of(key), images=config.images)
        readers[key] = fit_reader(features, iou, penalty=config.penalty)
        facts[key] = {"masks": len(iou), "mean_iou": float(iou.mean())}
    record = {
        "reliability_fit": asdict(config),
        "masks": facts,
        "source": {"name": dataset.name, "sha256": dataset_hash(dataset)},
        "environment": environment(),
    }
    out = Path(config.out) / NAME
    return save_reliability(out, Reliability(readers, reliability_identity(model)), record)


def fit_reader(features: dict[str, np.ndarray], iou: np.ndarray, *, penalty: float = 0.0) -> Reader:
    """The logistic function of the features' logits that is nearest to the IoU ``[N]`` in cross-entropy.

    Its weights are none below 0, so that a mask that is better in every feature is never called worse. Raises
    `RuacError` for less than 10 masks.
    """
    if len(iou) < 10:
        raise RuacError(f"reliability: {len(iou)} masks, expected at least 10 to fit on")
    names = list(features)
    inputs = np.stack([feature_logit(features[name]) for name in names] + [np.ones(len(iou))], axis=1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        score = inputs @ weights
        value = np.logaddexp(0, score) - iou * score
        slope = (1 / (1 + np.exp(-score)) - iou) @ inputs / len(iou)
        shrunk = np.append(weights[:-1], 0.0)
        return value.mean() + penalty * (shrunk**2).sum(), slope + 2 * penalty * shrunk

    start = np.append(np.full(len(names), 1 / len(names)), 0.0)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(names) + [(None, None)])
    weights = {name: float(weight) for name, weight in zip(names, found.x, strict=False)}
    reader = Reader(weights, float(found.x[-1]), [], [])
    return Reader(weights, float(found.x[-1]), *risk_curve(reader.read(features), iou))


def risk_curve(reliability: np.ndarray, iou: np.ndarray, points: int = CURVE) -> tuple[list[float], list[float]]:
    """Thresholds, rising, and the mean of 1 - IoU over masks of at least that reliability; equal ones together."""
    order = np.argsort(-reliability, kind="stable")
    ranked, risk = reliability[order], np.cumsum(1 - iou[order]) / np.arange(1, len(iou) + 1)
    last = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))  # a threshold takes all of its equals
    kept = last[np.unique(np.linspace(0, len(last) - 1, points).round().astype(int))][::-1]
    return ranked[kept].astype(float).tolist(), risk[kept].tolist()


@torch.no_grad()
def gather(
    model: UncertainSam, dataset: MaskDataset, protocol: ProtocolConfig, looks: LooksConfig | None, *, images: int = 0
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Features ``[N]`` by name and true IoU ``[N]`` of the answers to all objects of the images, after every click."""
    count = min(images or len(dataset), len(dataset))
    found: list[tuple[dict[str, np.ndarray], np.ndarray]] = []
    for place in track(np.linspace(0, len(dataset) - 1, count).astype(int), description=dataset.name):
        found += [rest for _, *rest in mask_answers(model, dataset[place], protocol, looks)]
    if not found:
        raise RuacError(f"{dataset.name}: no objects")
    names = found[0][0]
    return {name: np.concatenate([features[name] for features, _ in found]) for name in names}, np.concatenate(
        [iou for _, iou in found]
    )


def mask_answers(
    model: UncertainSam, sample: Sample, protocol: ProtocolConfig, looks: LooksConfig | None
) -> Iterator[tuple[int, dict[str, np.ndarray], np.ndarray]]:
    """(click, features, true IoU) of all objects of one image, some at a time."""
    features = Encodings(sample.image)(model.backbone)
    for block in blocks(len(sample.masks), model.backbone):
        part = objects_of(sample, block)
        keys = [f"{part.record.id}/{key}" for key in part.record.object_ids]
        rounds = _rounds(model, features, part, protocol, keys)
        for click, each in enumerate(rounds, start=1):
            yield click, *_answered(model, part, each, looks)


def _rounds(
    model: UncertainSam, features: Features, part: Sample, protocol: ProtocolConfig, keys: list[str]
) -> Iterator[Round]:
    frame = model.backbone.frame(part.masks.shape[1:])
    return prompt_objects(model.decode, features, part.masks, protocol, frame=frame, keys=keys)


def _answered(
    model: UncertainSam, part: Sample, each: Round, looks: LooksConfig | None
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    if looks is None:
        probability = each.prediction.maps(each.choice[:, None], part.masks.shape[1:]).probability
        masks, scores, first = each.masks, each.iou, None
    else:
        looked = look_again(model, looks, Question(part.image, each.prompts, each.prediction, each.choice, each.masks))
        masks, scores, probability, first = looked.masks, looked.iou, looked.maps.probability, each.masks
    return mask_features(masks, _numpy(probability[:, 0]), _numpy(scores), first), jaccard(masks, part.masks)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
