"""Two or more sweeps side by side: refused unless they measured the same objects in the same way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ruac.base.errors import RuacError
from ruac.evaluation.metrics.significance import Interval, paired_bootstrap, wilcoxon
from ruac.evaluation.results.load import Results, load_results
from ruac.evaluation.results.names import COLUMNS, SHOWN_FIRST

PLACE = ["domain", "image", "object"]
PLACES_ONLY = ("replay", "limit")  # of a protocol: what they lead to is in the hashes of clicks and images


@dataclass(frozen=True)
class Side:
    """A model of a result folder. score: its first uncertainty score."""

    spec: str
    results: Results
    model: str
    score: str

    def values(self, metric: str, region: str) -> np.ndarray:
        """Of each unseen domain, ``[D]``."""
        frame = self.results.values[metric]
        return np.array([frame.get((d, self.model, self.score, region), np.nan) for d in self.results.domains])

    def objects(self) -> pd.DataFrame:
        """J and F by domain, image and object, of the unseen domains."""
        own = self.results.objects[self.results.objects.model == self.model]
        return own.set_index(PLACE).sort_index()[["j", "f"]]


def compare(specs: list[str], *, region: str = "band", metrics: list[str] | None = None) -> str:
    """Differences of every further one of `specs` from the first, as Markdown.

    specs: result folders, ``FOLDER`` (its last model) or ``FOLDER:MODEL``. J and F in points with the 95 % interval of
    a paired bootstrap over objects, by domain and as mean over domains; `metrics` with a Wilcoxon signed-rank test
    over domains. References count nowhere. Raises `RuacError` for an unreadable folder, an unknown model, region or
    metric, and for folders that differ in protocol, version, domains, data or objects, naming what differs.
    """
    if len(specs) < 2:
        raise RuacError("compare: expected at least two of FOLDER or FOLDER:MODEL")
    first, *others = (_open(spec) for spec in specs)
    metrics = [m for m in SHOWN_FIRST if m in first.results.values] if metrics is None else metrics
    if region not in first.results.regions:
        raise RuacError(f"region: {region!r}, expected one of: {', '.join(first.results.regions)}")
    for metric in metrics:
        if metric not in first.results.values or metric not in COLUMNS:
            known = ", ".join(m for m in first.results.values if m in COLUMNS)
            raise RuacError(f"metric {metric!r}: unknown, expected some of: {known}")
    for other in others:
        check_comparable(first, other)
    return "\n".join(_report(other, first, region, metrics) for other in others)


def check_comparable(ours: Side, theirs: Side) -> None:
    """Raise `RuacError` unless both measured the same objects of the same data in the same way."""
    pair = f"{ours.spec} and {theirs.spec}"
    a, b = ours.results.manifest, theirs.results.manifest
    keys = [key for key in {**a["protocol"], **b["protocol"]} if key not in PLACES_ONLY]
    facts = {f"protocol.{key}": (a["protocol"].get(key), b["protocol"].get(key)) for key in keys}
    facts["environment.ruac"] = a["environment"].get("ruac"), b["environment"].get("ruac")
    hashes = [{d["name"]: d.get("sha256") for d in m["domains"] if not d.get("reference")} for m in (a, b)]
    for name in {**hashes[0], **hashes[1]}:
        present = [name in found for found in hashes]
        facts[f"domain {name!r}"] = tuple("there" if there else "not there" for there in present)
        if all(present):
            facts[f"domain {name!r}: sha256"] = tuple(found[name] for found in hashes)
    for name, (left, right) in facts.items():
        if left != right:
            raise RuacError(f"{pair} cannot be compared: {name} is {left!r} and {right!r}")
    places = [side.objects().index for side in (ours, theirs)]
    if len(odd := places[0].symmetric_difference(places[1])):
        where = "/".join(map(str, odd[0]))
        spec = (ours if odd[0] in places[0] else theirs).spec
        raise RuacError(f"{pair} cannot be compared: {len(odd)} objects are in one only, such as {where} in {spec}")


def _open(spec: str) -> Side:
    folder, _, model = spec.rpartition(":")
    if not folder or Path(spec).is_dir():
        folder, model = spec, ""
    results = load_results(Path(folder))
    model = model or results.models[-1]
    if model not in results.models:
        raise RuacError(f"{folder}: no model {model!r}, expected one of: {', '.join(results.models)}")
    return Side(spec, results, model, next(entry.score for entry in results.entries if entry.model == model))


def _report(ours: Side, theirs: Side, region: str, metrics: list[str]) -> str:
    a, b = ours.objects(), theirs.objects()
    differences = {}
    for name in ("j", "f"):
        values = [{d: frame.loc[d][name].to_numpy() for d in ours.results.domains} for frame in (a, b)]
        differences[name] = {d: paired_bootstrap({d: values[0][d]}, {d: values[1][d]}) for d in values[0]}
        differences[name]["**mean**"] = paired_bootstrap(*values)
    lines = [
        f"{ours.spec} ({ours.model}.{ours.score}) minus {theirs.spec} ({theirs.model}.{theirs.score})\n",
        "| domain | objects | J, points [95 %] | F, points [95 %] |",
        "|---|---:|---:|---:|",
    ]
    sizes = a.groupby(level="domain").size().to_dict() | {"**mean**": len(a)}
    for domain in [*ours.results.domains, "**mean**"]:
        cells = [_points(differences[name][domain]) for name in ("j", "f")]
        lines.append(f"| {domain} | {sizes[domain]:,} | {' | '.join(cells)} |")
    lines += [f"\n| metric ({region}) | ours | theirs | better in | worse in | p |", "|---|---:|---:|---:|---:|---:|"]
    for metric in metrics:
        column, x, y = COLUMNS[metric], ours.values(metric, region), theirs.values(metric, region)
        both = np.isfinite(x) & np.isfinite(y)
        if not both.any():
            lines.append(f"| {column.label} | \u2013 | \u2013 | | | |")
            continue
        x, y = x[both], y[both]
        sign = -1 if column.higher is False else 1
        wins, losses = ((sign * (x - y)) > 0).sum(), ((sign * (x - y)) < 0).sum()
        means = f"{column.text(x.mean())} | {column.text(y.mean())}"
        lines.append(f"| {column.label} | {means} | {wins} | {losses} | {wilcoxon(x, y):.2g} |")
    count = len(ours.results.domains)
    lines.append(f"\nIntervals: paired bootstrap over objects. p: Wilcoxon signed-rank test over {count} domains.\n")
    return "\n".join(lines)


def _points(interval: Interval) -> str:
    value, low, high = (100 * number for number in interval)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
