"""What post-hoc calibration is worth on the source it was fitted on and on unseen domains, kind by kind."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from ruac.base.errors import RuacError
from ruac.calibration import KINDS
from ruac.calibration.local import READS, LocalConfig
from ruac.evaluation.metrics.significance import wilcoxon
from ruac.evaluation.protocol import ProtocolConfig
from ruac.evaluation.results.load import read_table
from ruac.evaluation.results.schema import DOMAINS
from ruac.evaluation.sweep.runner import ModelConfig, SweepConfig, run_sweep
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
        known = [*KINDS, *(f"local_{reads}" for reads in READS if reads != "both")]
        if unknown := [kind for kind in self.kinds if kind not in known]:
            raise RuacError(f"kinds: {unknown[0]!r}, expected some of: {', '.join(known)}")
        if BASE not in self.kinds or not self.domains:
            raise RuacError(f"expected {BASE!r} among kinds, and at least one entry under domains")

    def fits(self) -> dict[str, CalibrateConfig]:
        """A calibration per row."""
        common = {"backbone": self.backbone, "seed": self.seed, "cpu": self.cpu, "cache": f"{self.out}/answers"}
        prompted = {"source": self.source, "images": self.images, "held_out": self.held_out, "protocol": self.protocol}
        found = {}
        for name in self.kinds:
            kind, _, reads = name.partition("_")
            local = LocalConfig(reads or "both")
            found[name] = CalibrateConfig(kind=kind, local=local, out=f"{self.out}/fits/{name}", **prompted, **common)
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
    sweep = SweepConfig(
        models=[ModelConfig(VANILLA, backbone=config.backbone)]
        + [ModelConfig(name, export=fit.out) for name, fit in fits.items()],
        reference=[f"{config.source.rpartition('@')[0] or config.source}@{held.with_suffix('').resolve()}"],
        domains=config.domains,
        limit=config.limit,
        panels=0,
        cpu=config.cpu,
        protocol=config.protocol,
        out=f"{config.out}/sweep",
    )
    rows = read_table(run_sweep(sweep) / DOMAINS)
    table = summarise(rows[rows.score.isin(["entropy", "total"])])
    print(table.round(4).to_string(index=False))
    return write_outputs(config.out, "calibration", config=config, table=table, figure=_figure(table), facts={})


def summarise(rows: pd.DataFrame) -> pd.DataFrame:
    """A row per model: ECE, NLL and PRR on the source and as means over domains, and how they compare.

    rows: of ``domains.csv``, one score per model. ``beats_vanilla``, ``beats_temperature``: domains of lower band ECE,
    with the p of Wilcoxon's test over domains.
    """
    found = []
    values = rows.set_index(["model", "region", "domain"])
    unseen = list(dict.fromkeys(rows.domain[~rows.reference]))
    source = list(dict.fromkeys(rows.domain[rows.reference]))
    for model in dict.fromkeys(rows.model):
        row = {"model": model, "domains": len(unseen)}
        for place, names in (("source", source), ("domains", unseen)):
            for region in ("image", "band"):
                own = values.loc[(model, region)].loc[names]
                row |= {f"{place}_{region}_{m}": float(own[m].mean()) for m in ("ece", "nll", "prr", "auroc")}
        for other in (VANILLA, BASE):
            ours, theirs = (values.loc[(name, "band")].loc[unseen, "ece"] for name in (model, other))
            row[f"beats_{other}"] = int((ours < theirs).sum())
            row[f"p_{other}"] = float(wilcoxon(ours, theirs)) if model != other else float("nan")
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
