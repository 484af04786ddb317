"""All models at a glance: the radar over metrics, and dots per domain."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from ruac.evaluation.report.svg import Series, dot_chart, radar_chart
from ruac.evaluation.results.load import Entry, Results
from ruac.evaluation.results.names import COLUMNS, RADAR, Column

_LIMITS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)


def gain(results: Results, column: Column, entry: Entry, region: str) -> float:
    """How much of the baseline's distance to a perfect value the entry closes, both as means over domains.

    0 is the baseline, 1 perfect, -1 twice as far from perfect as the baseline. The baseline is `Results.baseline` with
    its first score. nan if no domain has both values, or if the baseline is perfect.
    """
    baseline = next(e for e in results.entries if e.model == results.baseline)
    values = np.array([results.series(column, e, region) for e in (baseline, entry)])
    theirs, ours = np.abs(values[:, np.isfinite(values).all(0)] - column.perfect).sum(1)
    return 1 - float(ours / theirs) if theirs else np.nan


def radar(results: Results, region: str) -> Markup | None:
    """Every model with its first score against the baseline; None without a second model or three metrics."""
    columns = [COLUMNS[key] for key in RADAR if key in results.values]
    entries = [next(e for e in results.entries if e.model == model) for model in results.models]
    if len(entries) < 2 or len(columns) < 3:
        return None
    table = np.array([[gain(results, c, entry, region) for c in columns] for entry in entries])  # [entries, columns]
    largest = np.abs(table[np.isfinite(table)]).max(initial=0.0)
    limit = next((limit for limit in _LIMITS if largest <= limit), _LIMITS[-1])
    series = [
        Series(label=entry.model, x=np.zeros(len(columns)), y=own, model=entry.color)
        for entry, own in zip(entries, table, strict=True)
    ]
    return radar_chart(
        [(column.label, f"#metric-{column.key}") for column in columns],
        series,
        limit=limit,
        rings={0.0: "0"} | {value: f"{100 * value:+g} %" for value in (-limit / 2, limit / 2, limit)},
        description=f"Radar of {len(columns)} metrics relative to {results.baseline}, {region}",
    )


def metric_charts(results: Results, columns: list[Column], region: str) -> list[tuple[Column, Markup]]:
    """Per metric, every domain's values and their mean."""
    names = [*results.domains, "mean"]
    charts = []
    for column in columns:
        series = []
        for entry in results.entries_of(column):
            values = column.scale * results.series(column, entry, region)
            mean = values[np.isfinite(values)].mean() if np.isfinite(values).any() else np.nan
            values, rows = np.append(values, mean), np.arange(len(names))
            series.append(Series(label=entry.label, x=values, y=rows, model=entry.color, style=entry.style))
        description = f"{column.label} per domain, {region}"
        charts.append((column, dot_chart(names, series, description=description, digits=column.digits)))
    return charts
