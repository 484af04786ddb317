"""A sweep's result folder in, one self-contained HTML file out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from ruac.files import write_text
from ruac.overlay import uncertainty_colors
from ruac.report.columns import COLUMNS, DOTS, GLANCE, SHOWN_FIRST, Column
from ruac.report.figures import curve_charts, metric_charts, score_charts
from ruac.report.load import COUNTS, REGIONS, Entry, Results, load_results
from ruac.report.panels import CASES, load_panels
from ruac.report.statements import statements


def build_report(results_dir: str | Path, out_path: str | Path | None = None, title: str | None = None) -> Path:
    """Write the HTML report of a sweep (``<results_dir>/report.html`` by default) and return its path.

    The file holds its own style, drawings and pictures and asks nothing of the network.
    Raises `RuacError` naming the file, column or key that is missing or broken.
    """
    results = load_results(Path(results_dir))
    panels, panel_count = load_panels(results.folder / "panels", results.models)
    environment = Environment(
        loader=PackageLoader("ruac.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        title=title or "Reliability report",
        manifest=results.manifest,
        results=results,
        regions=[(region, REGIONS.get(region, region)) for region in results.regions],
        object_count=len(results.objects.drop_duplicates(["domain", "image", "object"])),
        image_count=len(results.objects.drop_duplicates(["domain", "image"])),
        statements=statements(results),
        columns=results.columns,
        shown_first=[k for k in SHOWN_FIRST if k in results.values] or [c.key for c in results.columns[:5]],
        glance={region: glance(results, region) for region in results.regions},
        tables={region: domain_table(results, region) for region in results.regions},
        dots={
            region: metric_charts(results, [COLUMNS[k] for k in DOTS if k in results.values], region)
            for region in results.regions
        },
        curves={region: curve_charts(results, region) for region in results.regions},
        curve_entries=results.entries_of(COLUMNS["ece"]) if "ece" in results.values else results.entries,
        scores=score_charts(results),
        cases=[
            (case, [p for p in panels if p.case == case]) for case in dict.fromkeys((*CASES, *(p.case for p in panels)))
        ],
        panel_count=panel_count,
        panels_shown=len(panels),
        ramp=uncertainty_colors(),
    )
    path = Path(out_path) if out_path is not None else results.folder / "report.html"
    write_text(path, html)
    return path


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


def _cells(column: Column, values: np.ndarray, partial: list[bool] | None = None) -> list[dict]:
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
    cells = _cells(column, np.array(means), [0 < n < max(counts) for n in counts])
    return [cell | {"count": n} for cell, n in zip(cells, counts, strict=True)]


def domain_table(results: Results, region: str) -> dict:
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
                "cells": [cell for column, values in data for cell in _cells(column, values[:, index])],
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
        cells = _means(results, column, region)
        position = {(e.model, e.score): cell for e, cell in zip(results.entries_of(column), cells, strict=True)}
        for entry, row in rows.items():
            row.append(position.get((entry.model, entry.score)))
    return {"columns": columns, "rows": list(rows.items())}
