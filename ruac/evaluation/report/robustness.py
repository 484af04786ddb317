"""How the metrics change as a corruption grows: one curve per model over severities, from the clean picture on."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import MaxNLocator

from ruac.evaluation.report.svg import Series, line_chart
from ruac.evaluation.report.tables import cells
from ruac.evaluation.results.load import Results
from ruac.evaluation.results.names import COLUMNS, ROBUST, Column


def robustness(results: Results, region: str) -> list[dict]:
    """Per corruption: its name, the domains it was swept over, a chart per metric and a table row per severity.

    Each number is an unweighted mean over the domains that were swept at every severity of the corruption.
    """
    columns = [COLUMNS[key] for key in ROBUST if key in results.values]
    found = []
    for name in dict.fromkeys(corruption.name for corruption in results.corrupted.values()):
        variants = {(c.of, c.level): domain for domain, c in results.corrupted.items() if c.name == name}
        words = {c.level: c.severity for c in results.corrupted.values() if c.name == name}
        levels = sorted(words)
        domains = [d for d in results.domains if all((d, level) in variants for level in levels)]
        if not domains:
            continue
        names = [domains] + [[variants[d, level] for d in domains] for level in levels]
        severities = ["clean", *(words[level] for level in levels)]
        tables = [_means(results, column, names, region) for column in columns]
        rows = [
            {"severity": word, "groups": [cells(c, table[i]) for c, table in zip(columns, tables, strict=True)]}
            for i, word in enumerate(severities)
        ]
        places = np.array([0, *levels], float)
        ticks = dict(zip(places, severities, strict=True))
        charts = [
            (column, _chart(results, column, table, ticks, f"{column.label} under {name}, {region}"))
            for column, table in zip(columns, tables, strict=True)
        ]
        found.append({"name": name.replace("_", " "), "domains": domains, "charts": charts, "rows": rows})
    return found


def robust_groups(results: Results) -> list[tuple[Column, list]]:
    """The columns of the tables, each with its entries."""
    return [(COLUMNS[key], results.entries_of(COLUMNS[key])) for key in ROBUST if key in results.values]


def _means(results: Results, column: Column, names: list[list[str]], region: str) -> np.ndarray:
    """``[severities, entries]`` over the domains where an entry has a value at every severity.

    names: of the domains, per severity and in one order.
    """
    means = []
    for entry in results.entries_of(column):
        values = np.array([results.series(column, entry, region, own) for own in names])  # [severities, domains]
        values = values[:, np.isfinite(values).all(0)]
        means.append(values.mean(1) if values.size else np.full(len(names), np.nan))
    return np.array(means).T


def _chart(results: Results, column: Column, table: np.ndarray, ticks: dict[float, str], description: str):
    values = column.scale * table[np.isfinite(table)]
    ends = (
        MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(*(values.min(), values.max())) if len(values) else (0, 1)
    )
    series = [
        Series(
            label=entry.label,
            x=np.array(list(ticks)),
            y=column.scale * own,
            weight=np.full(len(ticks), 0.25),
            model=entry.color,
            style=entry.style,
        )
        for entry, own in zip(results.entries_of(column), table.T, strict=True)
    ]
    return line_chart(
        series,
        description=description,
        xlabel="severity",
        ylabel="",
        xlim=(-0.2, max(ticks) + 0.2),
        ylim=(float(ends[0]), float(ends[-1])),
        xticks=ticks,
    )
