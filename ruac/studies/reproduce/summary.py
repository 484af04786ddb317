"""Tables over seeds: ``OUT/summary`` with CSV files of everything and Markdown of what is looked at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ruac.base.errors import RuacError
from ruac.base.files import write_text
from ruac.evaluation.results.names import COLUMNS, REGIONS, Column
from ruac.studies.reproduce.collect import Collected, collect
from ruac.studies.reproduce.compare import (
    OBJECT_SCORES,
    PIXEL_SCORES,
    over_domains,
    over_objects,
    over_pixels,
    over_seeds,
)
from ruac.studies.reproduce.cost import attack_strength, training_cost
from ruac.studies.reproduce.plan import PlanConfig

SHOWN = ("jf", "ece", "auroc", "aupr", "aurc", "prr", "pavpu", "rss", "pcc")
OBJECT_COLUMNS = {
    "gap": Column("gap", "band gap", False, digits=4),
    "iou_error": Column("iou_error", "error of the predicted IoU", False, digits=4),
}
PARTS = 4  # of a training, for the table of attack strength


def write_summary(plan: PlanConfig) -> Path:
    """Write the tables of all that is finished; returns the path of ``summary.md``.

    Raises `RuacError` if no sweep has a finished batch, or batches cannot be compared.
    """
    out = Path(plan.out) / "summary"
    sweeps = {sweep.name: found for sweep in plan.sweeps if (found := collect(plan, sweep)) is not None}
    if not sweeps:
        raise RuacError(f"{plan.out}: no finished sweep to summarise")
    pages, details = [], []
    frames: dict[str, list[pd.DataFrame]] = {"domains": [], "rows": [], "differences": [], "intervals": []}
    for name, collected in sweeps.items():
        seeds = over_seeds(collected)
        baselines = [row for row in plan.compare_with if row in collected.rows]
        differences = [over_domains(collected, row) for row in baselines]
        intervals = [
            pd.concat(over(collected, row, replicates=plan.replicates) for over in (over_objects, over_pixels))
            for row in baselines
        ]
        pages += [f"## Sweep `{name}`", _means(seeds)]
        for row, domains, objects in zip(baselines, differences, intervals, strict=True):
            if len(domains):
                pages += [f"### Against {row}", _differences(domains), _intervals(objects, plan.replicates)]
        details += [f"# Sweep `{name}`", *_per_domain(collected)]
        for key, tables in zip(frames, ([collected.values], [seeds], differences, intervals), strict=True):
            frames[key] += [table.assign(sweep=name) for table in tables]
    for key, tables in frames.items():
        write_text(out / f"{key}.csv", pd.concat(tables).to_csv(index=False))

    runs = [run for run in plan.runs() if run.finished]
    if runs:
        cost = pd.DataFrame([training_cost(run) for run in runs])
        attack = pd.concat([attack_strength(run) for run in runs])
        write_text(out / "cost.csv", cost.to_csv(index=False))
        write_text(out / "attack.csv", attack.to_csv(index=False))
        pages += ["## Training cost", _cost(cost)]
        if len(attack):
            pages += ["## Attack strength over time", _attack(attack, dict(zip(cost.run, cost.steps, strict=True)))]
    write_text(out / "domains.md", "\n\n".join(details) + "\n")
    write_text(out / "summary.md", "\n\n".join(pages) + "\n")
    return out / "summary.md"


def markdown(heads: list[str], lines: list[list[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    rule = "|---|" + "---:|" * (len(heads) - 1)
    return "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(line)} |" for line in lines)])


def _means(seeds: pd.DataFrame) -> str:
    found = seeds[seeds.main].set_index(["region", "row", "metric"]).sort_index()
    pages = []
    for region, title in REGIONS.items():
        lines = []
        for row in seeds.row.unique():
            cells = [_with_deviation(COLUMNS[metric], found.loc[region, row, metric]) for metric in SHOWN]
            count = int(found.loc[region, row].seeds.max())
            lines.append([row, str(count), *cells])
        text = f"Mean over domains, {title}; ± standard deviation over seeds."
        pages.append(f"{text}\n\n{markdown(['row', 'seeds', *(COLUMNS[m].label for m in SHOWN)], lines)}")
    return "\n\n".join(pages)


def _with_deviation(column: Column, cell: pd.Series) -> str:
    text = column.text(cell["mean"])
    return f"{text} ± {column.text(cell.deviation)}" if np.isfinite(cell.deviation) else text


def _differences(domains: pd.DataFrame) -> str:
    found = domains.set_index(["region", "row", "metric"])
    pages = []
    for region, title in REGIONS.items():
        lines = []
        for row in domains.row.unique():
            cells = []
            for metric in SHOWN:
                cell = found.loc[(region, row, metric)]
                better = f"{cell.better} of {cell.domains}, p {cell.p:.2g}"
                cells.append(f"{_signed(COLUMNS[metric], cell.difference)} ({better})")
            lines.append([row, *cells])
        text = f"Difference, {title} (better in so many domains, Wilcoxon's p over domains, not corrected)."
        pages.append(f"{text}\n\n{markdown(['row', *(COLUMNS[m].label for m in SHOWN)], lines)}")
    return "\n\n".join(pages)


def _intervals(objects: pd.DataFrame, replicates: int) -> str:
    found, pages = objects.set_index(["row", "metric"]), []
    for text, scores, drawn in (
        ("Difference per object", OBJECT_SCORES, "objects"),
        ("Difference of the entropy's pooled metrics in the object band", PIXEL_SCORES, "images"),
    ):
        columns, lines = [OBJECT_COLUMNS.get(score) or COLUMNS[score] for score in scores], []
        for row in objects.row.unique():
            cells = [(column, found.loc[(row, column.key)]) for column in columns]
            lines.append(
                [row, *(f"{_signed(c, x.difference)} [{_signed(c, x.low)}, {_signed(c, x.high)}]" for c, x in cells)]
            )
        text = f"{text} [95 % interval of {replicates} paired bootstrap draws of {drawn} within domains]."
        pages.append(f"{text}\n\n{markdown(['row', *(c.label for c in columns)], lines)}")
    return "\n\n".join(pages)


def _per_domain(collected: Collected) -> list[str]:
    """One table per region and metric: domains down, rows across, means over seeds; references first."""
    values, pages = collected.values[collected.values.main], []
    references = set(values.domain[values.reference])
    for region, title in REGIONS.items():
        for metric in SHOWN:
            own, column = values[values.region == region], COLUMNS[metric]
            table = own.pivot_table(
                index="domain", columns="row", values=metric, aggfunc="mean", sort=False, dropna=False
            )
            lines = [
                [f"{domain} (reference)" if domain in references else domain, *map(column.text, row)]
                for domain, row in zip(table.index, table.to_numpy(), strict=True)
            ]
            pages.append(f"## {column.label}, {title}\n\n{markdown(['domain', *table.columns], lines)}")
    return pages


def _cost(cost: pd.DataFrame) -> str:
    heads, lines = ["row", "runs", "steps", "hours per run", "hours x processes", "device"], []
    for row, runs in cost.groupby("row", sort=False):
        times = [f"{runs.steps.mean():.0f}", f"{runs.hours.mean():.3f}", f"{(runs.hours * runs.processes).mean():.3f}"]
        lines.append([row, str(len(runs)), *times, ", ".join(runs.device.unique())])
    return markdown(heads, lines)


def _attack(attack: pd.DataFrame, steps: dict[str, int]) -> str:
    part = np.ceil(PARTS * attack.step / attack.run.map(steps)).clip(1, PARTS).astype(int)
    table = attack.assign(part=part).pivot_table(
        index=["row", "measure"], columns="part", values="value", aggfunc="mean", sort=False
    )
    heads = ["row, measure", *(f"part {n} of {PARTS}" for n in range(1, PARTS + 1))]
    cells = table.reindex(columns=range(1, PARTS + 1)).to_numpy()
    lines = [
        [", ".join(index), *("" if np.isnan(value) else f"{value:.4f}" for value in row)]
        for index, row in zip(table.index, cells, strict=True)
    ]
    return "Mean over seeds and the logged steps of each part of the training.\n\n" + markdown(heads, lines)


def _signed(column: Column, value: float) -> str:
    return column.text(value) if value < 0 or not np.isfinite(value) else f"+{column.text(value)}"
