"""A sweep's results as a Markdown table: one row per domain, one column per metric and model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ruac.errors import RuacError
from ruac.report.columns import COLUMNS
from ruac.report.load import read_table


def markdown_table(results: str | Path, *, metrics: list[str], region: str = "band", scores: list[str]) -> str:
    """Markdown of ``domains.csv`` in `results`, with the unweighted mean over domains last, references not counted.

    metrics: columns of the file. region: image or band. scores: ``model.score`` to show, in this
    order. The best value of each metric in a row is bold, ties included. Raises `RuacError` for an
    unreadable file or an unknown metric, region or score.
    """
    path = Path(results) / "domains.csv"
    try:
        frame = read_table(path)
    except (OSError, ValueError) as error:
        raise RuacError(f"{path}: cannot be read; expected the result folder of a sweep") from error
    frame["who"] = frame.model + "." + frame.score
    for what, wanted, known in (
        ("metric", metrics, [c for c in frame.columns if c in COLUMNS]),
        ("region", [region], sorted(frame.region.unique())),
        ("score", scores, sorted(frame.who.unique())),
    ):
        if unknown := [name for name in wanted if name not in known]:
            raise RuacError(f"{path}: no {what} {unknown[0]!r}, expected some of: {', '.join(known)}")
    frame = frame[frame.region == region]
    wide = frame.pivot(index="domain", columns="who", values=metrics).reindex(frame.domain.unique())
    found = frame.drop_duplicates("domain").set_index("domain")
    wide.loc["**mean**"] = wide[~found.reference].mean()
    counts = found.objects.to_dict() | {"**mean**": found.objects[~found.reference].sum()}

    heads = [f"{COLUMNS[m].label} {who}" for m in metrics for who in scores]
    lines = ["| domain | objects | " + " | ".join(heads) + " |", "|---|---:|" + "---:|" * len(heads)]
    for domain, row in wide.iterrows():
        cells = [cell for m in metrics for cell in _cells(m, [row[m, who] for who in scores])]
        name = f"{domain} (reference)" if found.reference.get(domain, False) else domain
        lines.append(f"| {name} | {counts[domain]:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cells(metric: str, values: list[float]) -> list[str]:
    column = COLUMNS[metric]
    texts = [column.text(value) for value in values]
    if column.higher is None or not np.isfinite(values).any():
        return texts
    best = column.text(np.nanmax(values) if column.higher else np.nanmin(values))
    return [f"**{text}**" if text == best and len(set(texts)) > 1 else text for text in texts]
