"""How many masks can be accepted unseen at a chosen risk, by predicted IoU and by the fitted reliability?"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from rich.progress import track

from ruac.base.errors import RuacError
from ruac.data.identity import dataset_hash
from ruac.data.sample import MaskDataset
from ruac.evaluation.metrics.scores import coverage_at
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.sweep.open import open_domains
from ruac.fitting.reliability import looks_of, mask_answers
from ruac.inference.export import fingerprint, load_exported
from ruac.inference.model import UncertainSam
from ruac.inference.predictor import DEFAULT
from ruac.inference.reliability import Reader, load_reliability, reliability_identity
from ruac.studies.experiments.outputs import write_outputs

SCORES = ("predicted_iou", "expected_iou", "joint_iou", "reliability", "oracle")


@dataclass
class AcceptConfig:
    """domains: as in a sweep. export, backbone: the model; reliability: the file that was fitted for it. looks: a key
    of that file. risk: mean of 1 - IoU of accepted masks. images: per data set, spread evenly (0: all). clicks: the
    answers after these are judged, of as many as the protocol has."""

    domains: list[str] = field(default_factory=list)
    export: str = str(DEFAULT)
    backbone: str | None = None
    reliability: str = str(DEFAULT)
    looks: str = ""
    risk: float = 0.25
    images: int = 20
    clicks: list[int] = field(default_factory=lambda: [3])
    out: str = "runs/accept"
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if not self.domains:
            raise RuacError("expected at least one entry under domains")
        if not 0 < self.risk < 1 or self.images < 0:
            raise RuacError(
                f"risk {self.risk}, images {self.images}: expected a risk in (0, 1) and images of at least 0"
            )
        if any(not 1 <= click <= self.protocol.clicks for click in self.clicks):
            raise RuacError(f"clicks: {self.clicks}, expected from 1 to protocol.clicks = {self.protocol.clicks}")


def area_under_risk(score: np.ndarray, iou: np.ndarray) -> float:
    """Mean over all coverages of the mean of 1 - IoU of accepted masks (AURC)."""
    order = np.argsort(-score, kind="stable")
    return float((np.cumsum(1 - iou[order]) / np.arange(1, len(iou) + 1)).mean())


@torch.no_grad()
def judge(model: UncertainSam, dataset: MaskDataset, reader: Reader, config: AcceptConfig) -> pd.DataFrame:
    """One row per mask: its scores and true IoU."""
    count = min(config.images or len(dataset), len(dataset))
    rows = []
    for place in np.linspace(0, len(dataset) - 1, count).astype(int):
        for click, features, iou in mask_answers(model, dataset[place], config.protocol, looks_of(config.looks)):
            if click in config.clicks:
                columns = features | {"reliability": reader.read(features), "iou": iou, "oracle": iou}
                rows.append(pd.DataFrame(columns).assign(domain=dataset.name, click=click))
    return pd.concat(rows, ignore_index=True)


def run_accept(config: AcceptConfig) -> Path:
    """Run the experiment and print its table; returns the folder. Raises `RuacError` for unusable data or models."""
    model = load_exported(config.export, backbone=config.backbone).to(PartialState(cpu=config.cpu).device)
    reader = load_reliability(config.reliability, reliability_identity(model)).readers.get(config.looks)
    if reader is None:
        raise RuacError(f"{config.reliability}: nothing was fitted for looks {config.looks!r}")
    domains = open_domains(config.domains)
    masks = pd.concat([judge(model, data, reader, config) for data in track(domains.values(), "domains")])
    groups = [*masks.groupby("domain", sort=False), ("all", masks)]
    table = pd.DataFrame([row for name, some in groups for row in _rows(name, some, reader, config)])
    print(table[table.domain == "all"].round(4).to_string(index=False))
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for score in SCORES:
        order = np.argsort(-masks[score].to_numpy(), kind="stable")
        number = np.arange(1, len(masks) + 1)
        axes.plot(number / len(masks), np.cumsum(1 - masks.iou.to_numpy()[order]) / number, label=score)
    axes.axhline(config.risk, color="grey", linewidth=0.8)
    axes.set_xlabel("share of masks accepted")
    axes.set_ylabel("mean of 1 - IoU among them")
    axes.legend()
    facts = {
        "model": fingerprint(model),
        "data": {name: dataset_hash(data) for name, data in domains.items()},
        "reader": {"weights": reader.weights, "bias": reader.bias},
    }
    return write_outputs(config.out, "accept", config=config, table=table, figure=figure, facts=facts)


def _rows(domain: str, masks: pd.DataFrame, reader: Reader, config: AcceptConfig) -> list[dict]:
    """Per score: the coverage that its ranking allows, which needs the truth; and what the fitted threshold does."""
    iou = masks.iou.to_numpy()
    accepted = masks.reliability.to_numpy() >= reader.threshold_for(config.risk)
    rows = []
    for score in SCORES:
        values = masks[score].to_numpy()
        row = {"domain": domain, "score": score, "masks": len(iou), "mean_iou": iou.mean()}
        row |= {"coverage": coverage_at(values, iou, config.risk), "aurc": area_under_risk(values, iou)}
        if score == "reliability":
            risk = 1 - iou[accepted].mean() if accepted.any() else np.nan
            row |= {"accepted": accepted.mean(), "risk_of_accepted": risk}
        rows.append(row)
    return rows
