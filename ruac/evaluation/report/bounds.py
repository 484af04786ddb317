"""Whether inner and outer masks keep their promise, domain by domain."""

from __future__ import annotations

import numpy as np

from ruac.evaluation.results.load import Results
from ruac.evaluation.results.names import COLUMNS
from ruac.evaluation.results.schema import BOUNDS

PROMISED = ("coverage", "purity")


def bounds_table(results: Results) -> list[dict]:
    """Per model with conformal bounds: its alpha, and a row per reference and domain, and of means over domains."""
    columns = [COLUMNS[key] for key in BOUNDS if key in results.values]
    alphas = {m["name"]: (m.get("entry") or {}).get("alpha") for m in results.manifest["models"]}
    tables = []
    for model in results.models:
        entry = next(entry for entry in results.entries if entry.model == model)
        domains = [*results.references, *results.domains]
        values = np.array(
            [results.series(c, entry, results.regions[0], domains) for c in columns]
        )  # [columns, domains]
        if not np.isfinite(values).any():
            continue
        alpha = alphas[model]
        rows = [
            {
                "domain": domain,
                "kind": "reference" if domain in results.references else "",
                "cells": [_cell(c, v, alpha) for c, v in zip(columns, values[:, place], strict=True)],
            }
            for place, domain in enumerate(domains)
        ]
        unseen = np.ma.masked_invalid(values[:, len(results.references) :]).mean(1).filled(np.nan)
        mean = [_cell(c, v, None) for c, v in zip(columns, unseen, strict=True)]
        tables.append({"name": model, "alpha": alpha, "columns": columns, "rows": rows, "mean": mean})
    return tables


def _cell(column, value: float, alpha: float | None) -> dict:
    known = bool(np.isfinite(value))
    short = known and alpha is not None and column.key in PROMISED and value < 1 - alpha
    return {"text": column.text(value), "value": float(value) if known else None, "short": short}
