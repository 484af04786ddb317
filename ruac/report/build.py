"""A sweep's result folder in, one self-contained HTML file out."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from scipy.stats import wilcoxon

from ruac.errors import RuacError
from ruac.files import write_text
from ruac.overlay import uncertainty_colors
from ruac.report.figures import curve_charts, metric_charts, score_charts
from ruac.report.panels import CASES, load_panels

KEYS = ("domain", "model", "score", "region")
REGIONS = {"image": "whole image", "band": "band around the object"}
SCORES = {"entropy": "entropy", "iou": "1 - predicted IoU", "total": "total"}
_COUNTS = ("images", "objects")
_OBJECT_COLUMNS = ("domain", "image", "object", "model", "j", "predicted_iou")
_FEWEST_FOR_TEST = 6  # below this the two-sided signed-rank test cannot reach p < 0.05
_FEWEST_TO_AGREE = 3
_SLIGHT = 0.05


@dataclass(frozen=True)
class Column:
    """How a metric is shown. higher: larger is better, None where neither is. mask: judges the mask alone."""

    key: str
    label: str
    higher: bool | None = None
    scale: float = 1.0
    digits: int = 3
    mask: bool = False

    def text(self, value: float) -> str:
        return f"{self.scale * value:.{self.digits}f}" if np.isfinite(value) else "\u2013"


COLUMNS = {
    c.key: c
    for c in (
        Column("jf", "J&F", True, 100, 1, mask=True),
        Column("j", "J", True, 100, 1, mask=True),
        Column("f", "F", True, 100, 1, mask=True),
        Column("ece", "ECE", False, digits=4),
        Column("adaptive_ece", "adaptive ECE", False, digits=4),
        Column("ks", "KS", False, digits=4),
        Column("mce", "MCE", False),
        Column("brier", "Brier", False, digits=4),
        Column("nll", "NLL", False, digits=4),
        Column("auroc", "AUROC", True),
        Column("aupr", "AUPR", True),
        Column("fpr95", "FPR95", False),
        Column("aurc", "AURC", False, digits=4),
        Column("e_aurc", "E-AURC", False, digits=4),
        Column("ause", "AUSE", False),
        Column("prr", "PRR", True, digits=1),
        Column("p_acc_cert", "p(acc|cert)", True),
        Column("p_unc_inacc", "p(unc|inacc)", True),
        Column("pavpu", "PAvPU", True),
        *(Column(f"pavpu_{tau}", f"PAvPU {tau}", True) for tau in ("0.01", "0.05", "0.1")),
        Column("rss", "RSS", True),
        Column("pcc", "PCC", True),
        Column("spearman", "Spearman", True),
        Column("accuracy", "accuracy", True),
        Column("mean_uncertainty", "mean u"),
        Column("median_uncertainty", "median u"),
        Column("pixels", "pixels", digits=0),
    )
}
SHOWN_FIRST = ("jf", "ece", "auroc", "aurc", "prr")
GLANCE = ("jf", "ece", "brier", "nll", "auroc", "fpr95", "aurc", "prr", "pcc", "rss")
DOTS = ("jf", "ece", "brier", "auroc", "aurc", "prr")


@dataclass(frozen=True)
class Entry:
    """A model with one of its uncertainty scores: a curve, a table column."""

    model: str
    score: str
    label: str
    color: int
    style: int

    @property
    def classes(self) -> str:
        return f"m{self.color} d{self.style}"


@dataclass(frozen=True)
class Results:
    """A sweep's folder, read and checked. values: indexed by (domain, model, score, region), numeric columns only."""

    folder: Path
    manifest: dict
    values: pd.DataFrame
    objects: pd.DataFrame

    @property
    def models(self) -> list[str]:
        return [m["name"] for m in self.manifest["models"]]

    @property
    def domains(self) -> list[str]:
        return list(dict.fromkeys(self.values.index.get_level_values("domain")))

    @property
    def regions(self) -> list[str]:
        found = dict.fromkeys(self.values.index.get_level_values("region"))
        return [r for r in REGIONS if r in found] + [r for r in found if r not in REGIONS]

    @property
    def columns(self) -> list[Column]:
        known = [c for key, c in COLUMNS.items() if key in self.values]
        return known + [Column(k, k) for k in self.values if k not in COLUMNS and k not in _COUNTS]

    @property
    def entries(self) -> list[Entry]:
        pairs = dict.fromkeys(zip(*(self.values.index.get_level_values(k) for k in ("model", "score")), strict=True))
        entries = []
        for color, model in enumerate(self.models):
            scores = [score for m, score in pairs if m == model]
            for style, score in enumerate(scores):
                label = model if len(scores) == 1 else f"{model}, {SCORES.get(score, score)}"
                entries.append(Entry(model, score, label, color % 8, style % 3))
        return entries

    def entries_of(self, column: Column) -> list[Entry]:
        """The entries among which `column` is compared: one per model where its scores share all values.

        Masks, probabilities and what follows from them alone (J, ECE, ...) do not depend on the uncertainty score.
        """
        kept = []
        for model in self.models:
            own = [entry for entry in self.entries if entry.model == model]
            rows = [[self.series(column, entry, region) for region in self.regions] for entry in own]
            shared = all(np.array_equal(row, rows[0], equal_nan=True) for row in rows)
            kept += [replace(own[0], label=model)] if shared else own
        return kept

    def series(self, column: Column, entry: Entry, region: str) -> np.ndarray:
        """The metric per domain, nan where there is none. ``[domains]``."""
        wanted = pd.MultiIndex.from_tuples([(d, entry.model, entry.score, region) for d in self.domains])
        return self.values[column.key].reindex(wanted).to_numpy(float)


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


def load_results(folder: Path) -> Results:
    """Read and check a sweep's folder. Raises `RuacError` naming what is missing."""
    if not folder.is_dir():
        raise RuacError(f"{folder}: results folder not found")
    manifest = _read(folder / "manifest.json", lambda path: json.loads(path.read_text(encoding="utf-8")))
    for key, kind in (("protocol", dict), ("models", list), ("domains", list), ("environment", dict)):
        if not isinstance(manifest, dict) or not isinstance(manifest.get(key), kind):
            raise RuacError(f"{folder / 'manifest.json'}: missing key '{key}', expected a {kind.__name__}")
    for key in ("models", "domains"):
        for index, item in enumerate(manifest[key]):
            if not isinstance(item, dict) or "name" not in item:
                raise RuacError(f"{folder / 'manifest.json'}: {key}[{index}]: missing key 'name'")

    path = folder / "domains.csv"
    # Converters keep a domain that is called "NA" or "nan" from turning into a missing value.
    table = _read(path, lambda p: pd.read_csv(p, converters=dict.fromkeys(KEYS, str)))
    _need(path, table, KEYS)
    values = table.set_index(list(KEYS)).select_dtypes("number").astype(float)
    if values.empty:
        raise RuacError(f"{path}: expected at least one row and one numeric column")
    if values.index.has_duplicates:
        raise RuacError(f"{path}: more than one row for {values.index[values.index.duplicated()][0]}")
    listed, found = {m["name"] for m in manifest["models"]}, set(values.index.get_level_values("model"))
    if listed != found:
        name = sorted(listed ^ found)[0]
        lacking = "domains.csv" if name in listed else "manifest.json"
        raise RuacError(f"{folder / lacking}: model '{name}' is missing")

    path = folder / "objects.parquet"
    objects = _read(path, pd.read_parquet)
    _need(path, objects, _OBJECT_COLUMNS)
    return Results(folder, manifest, values, objects)


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
    """Header groups, one row per domain and the row of means."""
    groups = [(column, results.entries_of(column)) for column in results.columns]
    data = [
        (c, np.array([results.series(c, e, region) for e in entries])) for c, entries in groups
    ]  # [entries, domains]
    counts = results.values.reindex(columns=list(_COUNTS)).groupby(level="domain").max()
    rows = [
        {
            "domain": domain,
            "counts": [counts.loc[domain, key] for key in _COUNTS],
            "cells": [cell for column, values in data for cell in _cells(column, values[:, index])],
        }
        for index, domain in enumerate(results.domains)
    ]
    return {"groups": groups, "rows": rows, "mean": [cell for c, _ in groups for cell in _means(results, c, region)]}


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


def statements(results: Results) -> list[dict]:
    """What the numbers allow to be said of every model against the baseline (the first vanilla model, else the first).

    One statement per question: a verdict, and the numbers behind it. A verdict is "better" or "worse" only when a
    signed-rank test over domains agrees at p < 0.05 or, with too few domains to test, when all of at least three agree.
    """
    kinds = [m.get("kind") for m in results.manifest["models"]]
    baseline = results.models[kinds.index("vanilla") if "vanilla" in kinds else 0]
    questions = (
        ("ece", "Calibration", "expected calibration error"),
        ("auroc", "Finding its own wrong pixels", "AUROC"),
        ("jf", "Masks", "J&F"),
    )
    found = []
    for model in results.models:
        for key, topic, name in questions:
            if model == baseline or key not in results.values:
                continue
            column = COLUMNS[key]
            regions = results.regions[:1] if column.mask else results.regions
            sides = [s for region in regions if (s := _compare(results, column, model, baseline, region))]
            if sides:
                verdicts = list(dict.fromkeys(side["verdict"] for side in sides))
                verdict = verdicts[0] if len(verdicts) == 1 else "mixed"
                found.append(
                    {"model": model, "baseline": baseline, "topic": topic, "key": key, "name": name, "verdict": verdict}
                    | {"slight": all(side["slight"] for side in sides)}
                    | {"sides": sides, "mask": column.mask, "lower": not column.higher}
                )
    return found


def _compare(results: Results, column: Column, model: str, baseline: str, region: str) -> dict | None:
    """Paired comparison over domains; a model with several scores is represented by the best of them."""

    def best(name: str) -> np.ndarray:
        rows = [results.series(column, e, region) for e in results.entries_of(column) if e.model == name]
        rows = [row for row in rows if np.isfinite(row).any()] or rows[:1]
        return max(rows, key=lambda row: np.nanmean(row) * (1 if column.higher else -1)) if len(rows) > 1 else rows[0]

    ours, theirs = best(model), best(baseline)
    paired = np.isfinite(ours) & np.isfinite(theirs)
    if not paired.any():
        return None
    ours, theirs = ours[paired], theirs[paired]
    gain = (ours - theirs) * (1 if column.higher else -1)
    count, wins, losses = len(gain), int((gain > 0).sum()), int((gain < 0).sum())
    p = None
    if count >= _FEWEST_FOR_TEST:
        p = float(wilcoxon(gain).pvalue) if wins + losses else 1.0
    sure = p < 0.05 if p is not None else max(wins, losses) == count >= _FEWEST_TO_AGREE
    # Mean and majority have to point the same way before either direction is claimed.
    better, worse = gain.mean() > 0 and wins > losses, gain.mean() < 0 and losses > wins
    return {
        "region": REGIONS.get(region, region),
        "verdict": ("better" if better else "worse") if sure and (better or worse) else "unclear",
        "ours": column.text(float(ours.mean())),
        "theirs": column.text(float(theirs.mean())),
        # Small against what there is to lose or gain: a sure difference can still be a slight one.
        "slight": abs(ours.mean() - theirs.mean()) < _SLIGHT * abs(theirs.mean() - bool(column.higher)),
        "change": _change(float(ours.mean()), float(theirs.mean())),
        "wins": wins,
        "count": count,
        "p": p,
    }


def _change(ours: float, theirs: float) -> str:
    if ours == theirs or theirs == 0:
        return "the same" if ours == theirs else "higher"
    percent = 100 * abs(ours - theirs) / abs(theirs)
    size = f"{percent:.0f} %" if percent >= 1 else "less than 1 %"
    return f"{size} {'lower' if ours < theirs else 'higher'}"


def _read(path: Path, reader):
    try:
        return reader(path)
    except FileNotFoundError:
        raise RuacError(f"{path}: not found") from None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise RuacError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _need(path: Path, table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [c for c in columns if c not in table]
    if missing:
        raise RuacError(f"{path}: missing column '{missing[0]}'; found {', '.join(map(str, table.columns))}")
