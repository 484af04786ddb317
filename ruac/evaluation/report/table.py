"""A sweep's results as a table, in Markdown or LaTeX: one row per domain, one column per metric and model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ruac.base.errors import RuacError
from ruac.base.files import write_text
from ruac.evaluation.metrics.significance import wilcoxon
from ruac.evaluation.results.load import corrupted_names, read_table
from ruac.evaluation.results.names import COLUMNS

METRICS = ("jf", "ece", "auroc", "aurc")
LEVEL = 0.05


class Cell(NamedTuple):
    """rank: 1 for the best value of its metric in the row, 2 for the second best, else 0. sure: differs from the
    baseline over domains."""

    text: str
    rank: int = 0
    sure: bool = False


@dataclass(frozen=True)
class Table:
    """heads: of the columns after domain and objects. rows: (domain, objects, cells), the mean over domains last.
    notes: what the marks mean, and what is missing."""

    heads: list[str]
    rows: list[tuple[str, int, list[Cell]]]
    notes: list[str]


def domain_table(
    results: str | Path,
    *,
    metrics: Iterable[str] = METRICS,
    region: str = "band",
    scores: list[str] | None = None,
    baseline: str | None = None,
) -> Table:
    """The table of ``domains.csv`` in `results`, with the unweighted mean over domains last, references not counted.

    metrics: columns of the file. region: image or band. scores: ``model.score`` to show, in this order; by default
    the first score of each model. baseline: one of `scores`, by default the first, from which the others' values are
    tested to differ by a Wilcoxon signed-rank test over domains, without references. Ranks are those of the printed
    texts, ties share one; a row of equal texts has none. Raises `RuacError` for an unreadable file or an unknown
    metric, region or score.
    """
    path = Path(results) / "domains.csv"
    try:
        frame = read_table(path)
    except (OSError, ValueError) as error:
        raise RuacError(f"{path}: cannot be read; expected the result folder of a sweep") from error
    frame["who"] = frame.model + "." + frame.score
    scores = list(frame.drop_duplicates("model").who) if scores is None else scores
    baseline = scores[0] if baseline is None else baseline
    for what, wanted, known in (
        ("metric", metrics, [c for c in frame.columns if c in COLUMNS]),
        ("region", [region], sorted(frame.region.unique())),
        ("score", scores, sorted(frame.who.unique())),
        ("baseline", [baseline], scores),
    ):
        if unknown := [name for name in wanted if name not in known]:
            raise RuacError(f"{path}: no {what} {unknown[0]!r}, expected some of: {', '.join(known)}")
    frame = frame[frame.region == region]
    metrics = list(metrics)
    wide = frame.pivot(index="domain", columns="who", values=metrics).reindex(frame.domain.unique())
    found = frame.drop_duplicates("domain").set_index("domain")
    unseen = wide[~found.reference]

    copies = corrupted_names(Path(results))
    rows = []
    for domain, values in wide.iterrows():
        cells = [cell for m in metrics for cell in _ranked(m, [values[m, who] for who in scores])]
        kind = " (corrupted)" if domain in copies else " (reference)"
        name = f"{domain}{kind if found.reference[domain] else ''}"
        rows.append((name, int(found.objects[domain]), cells))
    last, tested = [], len(scores) > 1 and len(unseen) > 1
    for m in metrics:
        cells = _ranked(m, [unseen[m, who].mean() for who in scores])
        sure = [tested and wilcoxon(unseen[m, who], unseen[m, baseline]) < LEVEL for who in scores]
        last += [cell._replace(sure=bool(s)) for cell, s in zip(cells, sure, strict=True)]
    rows.append(("mean", int(found.objects[~found.reference].sum()), last))
    notes = []
    if tested:
        test = f"Wilcoxon signed-rank test over {len(unseen)} domains, p < {LEVEL}"
        notes.append(f"\u2020 differs from {baseline}: {test}")
    if lost := found.get("failed", found.objects * 0).sum():
        notes.append(f"{lost} images could not be read and are in no number; the manifest names them")
    return Table([f"{COLUMNS[m].label} {who}" for m in metrics for who in scores], rows, notes)


def to_markdown(table: Table) -> str:
    """Best value bold, second best italic, a dagger where the mean differs from the baseline's."""
    styles = ("{}", "**{}**", "*{}*")
    lines = [["domain", "objects", *table.heads], ["---"] + ["---:"] * (len(table.heads) + 1)]
    for name, objects, cells in table.rows:
        texts = [styles[cell.rank].format(cell.text) + "\u2020" * cell.sure for cell in cells]
        lines.append([name.replace("|", r"\|"), f"{objects:,}", *texts])
    lines[-1][0] = f"**{lines[-1][0]}**"
    return "".join(f"| {' | '.join(line)} |\n" for line in lines) + "".join(f"\n{note}\n" for note in table.notes)


def to_latex(table: Table) -> str:
    """A ``tabular`` for the booktabs package: best value bold, second best underlined, a dagger as in Markdown."""
    styles = ("{}", r"\textbf{{{}}}", r"\underline{{{}}}")
    lines = [r"\begin{tabular}{l" + "r" * (len(table.heads) + 1) + "}", r"\toprule"]
    lines += [" & ".join(map(_escape, ["domain", "objects", *table.heads])) + r" \\", r"\midrule"]
    for name, objects, cells in table.rows:
        texts = [styles[cell.rank].format(_escape(cell.text)) + r"$^\dagger$" * cell.sure for cell in cells]
        lines.append(" & ".join([_escape(name), f"{objects:,}", *texts]) + r" \\")
    lines.insert(-1, r"\midrule")
    lines += [r"\bottomrule", r"\end{tabular}"] + [f"% {note}" for note in table.notes]
    return "\n".join(lines) + "\n"


def write_tables(results: str | Path) -> Path:
    """Write ``table.md`` and ``table.tex`` into the folder `results`; returns the first."""
    table, folder = domain_table(results), Path(results)
    write_text(folder / "table.tex", to_latex(table))
    write_text(folder / "table.md", to_markdown(table))
    return folder / "table.md"


def _ranked(metric: str, values: list[float]) -> list[Cell]:
    column = COLUMNS[metric]
    texts = [column.text(value) for value in values]
    finite = {texts[i]: value for i, value in enumerate(values) if np.isfinite(value)}
    order = sorted(finite, key=finite.get, reverse=bool(column.higher))
    if column.higher is None or len(set(texts)) == 1:
        order = []
    ranks = {text: rank for rank, text in enumerate(order[:2], start=1)}
    # With two columns the second best is the other one: nothing to point out.
    return [Cell(text, rank if (rank := ranks.get(text, 0)) < 2 or len(values) > 2 else 0) for text in texts]


def _escape(text: str) -> str:
    signs = {"\u2013": "--", "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return re.sub(r"[\\~^&%$#_{}\u2013]", lambda found: signs.get(found[0], f"\\{found[0]}"), text)
