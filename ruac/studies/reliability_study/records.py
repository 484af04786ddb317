"""The sweeps of a study as one table: a row per model, calibration, data set and region."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ruac.base.arrays import load_arrays
from ruac.base.errors import RuacError
from ruac.calibration.calibrator import ALL, ORACLE
from ruac.evaluation.conformal.fit import open_model
from ruac.evaluation.metrics import ReliabilitySums
from ruac.evaluation.metrics.ranking import ood_auroc
from ruac.evaluation.results.load import Results, load_results
from ruac.studies.reliability_study.config import NONE, StudiedModel
from ruac.studies.reliability_study.plan import SOURCE, Plan, Swept

MARKS = {ORACLE: f"{ORACLE} ({ORACLE})", ALL: f"{ALL} ({ALL})"}
"""What a sweep calls rows that have seen target pictures; here the place in the table says it."""


def read_study(plan: Plan) -> pd.DataFrame:
    """All sweeps of `plan`, which are finished.

    Columns: model, parameters, calibration, place (``source``, ``domain`` or ``weather``), domain, region; images,
    objects and every metric of ``domains.csv``, of each model's first score; ``ood_auroc`` of a domain's pictures
    against the source's, by the mean confidence of each answer in that region; corruption, severity and level of
    weather, whose clean pictures have level 0. Raises `RuacError` for a broken folder, or one without a row.
    """
    sizes = {model.name: parameters(model) for model in plan.config.models}
    inside = {swept.model.name: swept for swept in plan.sweeps if swept.place == SOURCE}
    return pd.concat(
        [_rows(plan, swept, sizes[swept.model.name], inside[swept.model.name]) for swept in plan.sweeps],
        ignore_index=True,
    )


def parameters(model: StudiedModel) -> int:
    """Of backbone and head together."""
    opened = open_model(model.export, model.backbone)
    modules = [opened.backbone.sam, *([opened.head] if opened.head is not None else [])]
    return sum(each.numel() for module in modules for each in module.parameters())


def _rows(plan: Plan, swept: Swept, size: int, inside: Swept) -> pd.DataFrame:
    results = load_results(swept.step.out)
    table = results.values.reset_index()
    names = {MARKS.get(row, row): row for row in (NONE, *plan.rows(swept.model), ORACLE, ALL)}
    table = table[table.model.isin(list(names))]  # a sweep of heads has vanilla SAM 2 beside them
    first = table.groupby("model").score.transform("first")
    table = table[table.score == first].copy()
    wanted = {entry.name for entry in swept.step.config.models}
    if lost := wanted - {names[name] for name in table.model}:
        raise RuacError(f"{swept.step.out}: no row of {min(lost)!r}")
    table["ood_auroc"] = [
        _ood(swept.step.out, inside.step.out, *row) if swept.place == "domain" else np.nan
        for row in table[["domain", "model", "score", "region"]].itertuples(index=False)
    ]
    known = _weather(results, table.domain)
    named = {"model": swept.model.name, "parameters": size, "calibration": table.model.map(names), "place": swept.place}
    named |= {"domain": swept.domain, "region": table.region} | known
    return pd.DataFrame(named | {key: table[key] for key in table if key not in (*named, "score")})


def _weather(results: Results, domains: pd.Series) -> dict[str, list]:
    found = [results.corrupted.get(domain) for domain in domains]
    return {
        "corruption": ["" if one is None else one.name for one in found],
        "severity": ["" if one is None else one.severity for one in found],
        "level": [0 if one is None else one.level for one in found],
    }


def _ood(outside: Path, inside: Path, domain: str, model: str, score: str, region: str) -> float:
    """nan for a row that the source has not: an oracle is fitted on its domain alone."""
    source = sorted((inside / "sums").glob(f"{model}.{score}.{region}.*.npz"))
    if not source:
        return float("nan")
    both = (source[0], outside / "sums" / f"{model}.{score}.{region}.{domain}.npz")
    return float(ood_auroc(*(_sums(path).map_confidence for path in both)))


def _sums(path: Path) -> ReliabilitySums:
    return ReliabilitySums.from_arrays(load_arrays(path))
