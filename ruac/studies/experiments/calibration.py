"""What post-hoc calibration is worth on the source it was fitted on and on unseen domains, kind by kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ruac.base.errors import RuacError
from ruac.calibration.registry import ROWS, row_settings
from ruac.data.open import place_and_split
from ruac.evaluation.metrics.significance import wilcoxon
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.results.load import read_table
from ruac.evaluation.results.schema import DOMAINS
from ruac.evaluation.sweep.config import ModelConfig, SweepConfig
from ruac.evaluation.sweep.runner import run_sweep
from ruac.fitting.calibrate import CalibrateConfig, run_calibrate
from ruac.studies.experiments.outputs import write_outputs

VANILLA, BASE = "vanilla", "temperature"


@dataclass
class CalibrationConfig:
    """source: held-out source images, ``FOLDER@SPLIT``: `held_out` of them are swept as the source, the rest is fitted
    on. stressed: training images for ``answer_stressed``, which is fitted on them under ``draw=stressed``; None for no
    such row. kinds: of calibrators; ``local_image`` and ``local_logits`` are the ablations. images: of the source
    (0: all). limit: images of each domain (0: all)."""

    source: str = "???"
    domains: list[str] = field(default_factory=list)
    stressed: str | None = None
    backbone: str = "nano"
    kinds: list[str] = field(default_factory=lambda: [BASE, "clustered", "local", "answer"])
    images: int = 0
    held_out: float = 0.2
    stressed_images: int = 300
    limit: int = 4
    out: str = "runs/calibration"
    seed: int = 0
    cpu: bool = False
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)

    def validate(self) -> None:
        if unknown := [kind for kind in self.kinds if kind not in ROWS]:
            raise RuacError(f"kinds: {unknown[0]!r}, expected some of: {', '.join(ROWS)}")
        if BASE not in self.kinds or not self.domains:
            raise RuacError(f"expected {BASE!r} among kinds, and at least one entry under domains")

    def fits(self) -> dict[str, CalibrateConfig]:
        """A calibration per row."""
        common = {"backbone": self.backbone, "seed": self.seed, "cpu": self.cpu, "cache": f"{self.out}/answers"}
        prompted = {"source": self.source, "images": self.images, "held_out": self.held_out, "protocol": self.protocol}
        found = {}
        for name in self.kinds:
            out = f"{self.out}/fits/{name}"
            found[name] = CalibrateConfig(**row_settings(name), out=out, **prompted, **common)
        if self.stressed is not None:
            own = {"source": self.stressed, "images": self.stressed_images, "held_out": 0.0, "draw": "stressed"}
            out = f"{self.out}/fits/answer_stressed"
            found["answer_stressed"] = CalibrateConfig(kind="answer", out=out, **own, **common)
        return found


def run_calibration(config: CalibrationConfig) -> Path:
    """Fit, sweep and print the table; returns the folder. What is fitted or swept already is not done again."""
    fits = config.fits()
    for fit in fits.values():
        fit.validate()
        if not (Path(fit.out) / "config.json").is_file():
            run_calibrate(fit)
    held = next((Path(fits[BASE].out) / "splits").glob("*/held_out.txt"))
    models = [ModelConfig(VANILLA, backbone=config.backbone)]
    models += [ModelConfig(name, export=fit.out) for name, fit in fits.items()]
    common = {"models": models, "panels": 0, "cpu": config.cpu, "protocol": config.protocol}
    source = f"{place_and_split(config.source)[0]}@{held.with_suffix('').resolve()}"
    own = run_sweep(SweepConfig(domains=[source], out=f"{config.out}/source", **common))
    unseen = run_sweep(SweepConfig(domains=config.domains, limit=config.limit, out=f"{config.out}/domains", **common))
    table = summarise(*(_first_scores(read_table(folder / DOMAINS)) for folder in (own, unseen)))
    print(table.round(4).to_string(index=False))
    return write_outputs(config.out, "calibration", config=config, table=table, figure=_figure(table), facts={})


def _first_scores(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows.score.isin(["entropy", "total"])]


def summarise(source: pd.DataFrame, unseen: pd.DataFrame) -> pd.DataFrame:
    """A row per model: ECE, NLL, PRR and AUROC as means over data sets, and how models compare over unseen domains.

    source, unseen: of a ``domains.csv`` each, one score per model. ``beats_vanilla``, ``beats_temperature``: domains of
    lower band ECE, with the p of Wilcoxon's test over domains.
    """
    band = unseen[unseen.region == "band"].pivot(index="domain", columns="model", values="ece")
    found = []
    for model in dict.fromkeys(unseen.model):
        row = {"model": model, "domains": len(band)}
        for place, rows in (("source", source), ("domains", unseen)):
            for region in ("image", "band"):
                own = rows[(rows.model == model) & (rows.region == region)]
                row |= {f"{place}_{region}_{m}": float(own[m].mean()) for m in ("ece", "nll", "prr", "auroc")}
        for other in (VANILLA, BASE):
            row[f"beats_{other}"] = int((band[model] < band[other]).sum())
            row[f"p_{other}"] = float(wilcoxon(band[model], band[other])) if model != other else float("nan")
        found.append(row)
    return pd.DataFrame(found)


def _figure(table: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for column, label in (("source_band_ece", "held-out source"), ("domains_band_ece", "mean over unseen domains")):
        axes.plot(table.model, table[column], "o-", label=label)
    axes.set_ylabel("ECE in the band")
    axes.tick_params(axis="x", rotation=30)
    axes.legend()
    return figure
