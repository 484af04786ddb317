"""A study from its config to its pages: what is finished is not done again."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ruac.base.files import atomic_path, write_text
from ruac.base.provenance import save_record
from ruac.studies.reliability_study.config import StudyConfig
from ruac.studies.reliability_study.figures import FIGURES
from ruac.studies.reliability_study.plan import WEATHER, Plan
from ruac.studies.reliability_study.records import read_study
from ruac.studies.reliability_study.tables import TABLES

ABOUT = {
    "error_ece": "Error, 1 - J&F, against ECE before and after calibration; area of a marker: parameters.",
    "calibration_ece": "Mean ECE of each calibration, on held-out source pictures and over unseen domains.",
    "cluster_ece": "ECE against the number of clusters of pictures, each with a temperature of its own.",
    "pixel_ece": "ECE of temperature scaling against the pixels per picture that it is fitted on.",
    "ranking": "Ranking of errors (PRR) and of unseen pictures (AUROC) against J&F, before and after calibration.",
    "weather_rss": "RSS of source pictures under corruptions, and its four terms at the strongest severity.",
    "conformal": "Coverage of outer masks, purity of inner masks, and their sizes, per data set.",
}


def status(config: StudyConfig) -> list[str]:
    """A line per step: whether it is done, with these settings."""
    return [f"{'done' if step.finished else 'to do':6}{step.name}" for step in Plan(config).steps]


def run_study(config: StudyConfig) -> tuple[Path, list[str]]:
    """Do all steps that are left, then write tables, figures and ``index.md``; returns the folder, and a line for each
    picture that could not be read.

    Raises `RuacError` for unusable models, data or settings; steps done until then stay done.
    """
    plan, lost = Plan(config), []
    for number, step in enumerate(plan.steps, 1):
        if not step.finished:
            print(f"[{number}/{len(plan.steps)}] {step.name}", flush=True)
            lost += step.do()
    write_study(plan.folder, read_study(plan), config, lost)
    return plan.folder, lost


def write_study(folder: Path, study: pd.DataFrame, config: StudyConfig, lost: list[str]) -> None:
    """``study.csv``, a CSV and a PNG per figure (none where the study has no row for it), and ``index.md``."""
    write_text(folder / "study.csv", study.to_csv(index=False))
    sections = []
    for name, make in TABLES.items():
        table = make(study)
        write_text(folder / f"{name}.csv", table.to_csv(index=False))
        text = f"## {name}\n\n{ABOUT[name]}\n\n"
        if len(table):
            with atomic_path(folder / f"{name}.png") as path:
                FIGURES[name](table, config.region).savefig(path, format="png", dpi=130)
            text += f"![{name}]({name}.png)\n\n"
        sections.append(f"{text}{len(table)} rows: [{name}.csv]({name}.csv)\n")
    save_record(folder, config)
    write_text(folder / "index.md", "\n".join([_head(study, lost), *sections]))


def _head(study: pd.DataFrame, lost: list[str]) -> str:
    """What all figures rest on."""
    one = study.drop_duplicates(["place", "domain", "corruption", "severity"])
    lines = ["# Reliability study", "", "| data | data sets | pictures | objects |", "|---|---:|---:|---:|"]
    for place, here in one.groupby("place", sort=False):
        lines.append(f"| {place} | {len(here)} | {here.images.sum():.0f} | {here.objects.sum():.0f} |")
    if (one.place == WEATHER).any():
        lines += ["", "Weather: the same few source pictures, clean and under every corruption."]
    lines += ["", "Settings: [config.yaml](config.yaml); versions and command: [environment.json](environment.json)."]
    lines += ["Every number of every sweep: [study.csv](study.csv).", ""]
    if lost:
        lines += ["Pictures that could not be read:", "", *(f"- {line.strip()}" for line in lost), ""]
    return "\n".join(lines)
