"""The report's tables: values, means over domains, and which of them are best."""

from __future__ import annotations

import numpy as np

from ruac.evaluation.results.load import COUNTS, Entry, Results
from ruac.evaluation.results.names import COLUMNS, GLANCE, Column


def marks(values: np.ndarray, column: Column) -> list[str]:
    """``best`` and ``second`` among values as they are shown; equal digits share a mark.

    Nothing is marked where no direction is better or all are equal; no second among only two different values.
    """
    shown = np.round(np.asarray(values, float) * column.scale, column.digits)
    distinct = np.unique(shown[np.isfinite(shown)])
    if column.higher is None or len(distinct) < 2:
        return [""] * len(shown)
    ranked = distinct[::-1] if column.higher else distinct
    names = {ranked[0]: "best"} | ({ranked[1]: "second"} if len(ranked) > 2 else {})
    return [names.get(value, "") for value in shown]


def cells(column: Column, values: np.ndarray, partial: list[bool] | None = None) -> list[dict]:
    """Text, value and mark of each of the values; no value is None. partial: left out of the ranking."""
    # A mean over fewer domains than the others is shown, but it takes no part in the ranking.
    partial = partial or [False] * len(values)
    ranked = np.where(partial, np.nan, values)
    return [
        {
            "text": column.text(v),
            "value": float(v) if np.isfinite(v) else None,
            "mark": m,
            "partial": p,
            "key": column.key,
        }
        for v, m, p in zip(values, marks(ranked, column), partial, strict=True)
    ]


def _means(results: Results, column: Column, region: str) -> list[dict]:
    """Cells of the unweighted mean over the domains that have a value."""
    rows = [results.series(column, entry, region) for entry in results.entries_of(column)]
    counts = [int(np.isfinite(row).sum()) for row in rows]
    means = [float(np.nanmean(row)) if n else np.nan for row, n in zip(rows, counts, strict=True)]
    shown = cells(column, np.array(means), [0 < n < max(counts) for n in counts])
    return [cell | {"count": n} for cell, n in zip(shown, counts, strict=True)]


def region_table(results: Results, region: str) -> dict:
    """Header groups, one row per reference and per domain, and the row of means over domains."""
    groups = [(column, results.entries_of(column)) for column in results.columns]
    counts = results.values.reindex(columns=list(COUNTS)).groupby(level="domain").max()

    def rows(domains: list[str]) -> list[dict]:
        data = [  # [entries, domains] of every column
            (column, np.array([results.series(column, entry, region, domains) for entry in entries]))
            for column, entries in groups
        ]
        return [
            {
                "domain": domain,
                "counts": [counts.loc[domain, key] for key in COUNTS],
                "cells": [cell for column, values in data for cell in cells(column, values[:, index])],
            }
            for index, domain in enumerate(domains)
        ]

    mean = [cell for column, _ in groups for cell in _means(results, column, region)]
    return {"groups": groups, "references": rows(results.references), "rows": rows(results.domains), "mean": mean}


def glance(results: Results, region: str) -> dict:
    """The means again, turned: one row per entry, the main metrics only."""
    columns = [COLUMNS[k] for k in GLANCE if k in results.values] or results.columns[:8]
    rows: dict[Entry, list] = {entry: [] for entry in results.entries}
    for column in columns:
        means = _means(results, column, region)
        position = {(e.model, e.score): cell for e, cell in zip(results.entries_of(column), means, strict=True)}
        for entry, row in rows.items():
            row.append(position.get((entry.model, entry.score)))
    return {"columns": columns, "rows": list(rows.items())}
