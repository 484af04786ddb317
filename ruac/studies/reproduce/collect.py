"""The finished batches of a sweep as two tables: metrics per domain, and scores per object."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ruac.base.errors import RuacError
from ruac.evaluation.results.load import Results, load_results
from ruac.studies.reproduce.batches import Batches
from ruac.studies.reproduce.plan import VANILLA, PlanConfig, SweepPlan

PLACE = ["domain", "image", "object"]
OBJECT_COLUMNS = ["j", "f", "predicted_iou", "band_error", "band_uncertainty", "band_counts"]


@dataclass(frozen=True)
class Collected:
    """values: one line per row of the plan, seed, domain, score and region, with "reference" as in ``domains.csv``
    and "main", True for the score that tables show. objects: one line per row, seed and object of an unseen
    domain; ``gap`` is |uncertainty - error|, each a mean over the object's band, ``iou_error`` |predicted - true IoU|,
    ``band_counts`` what `ruac.evaluation.metrics.band_counts` gives, flat.
    """

    values: pd.DataFrame
    objects: pd.DataFrame

    @property
    def rows(self) -> list[str]:
        return list(self.values.row.unique())


def collect(plan: PlanConfig, sweep: SweepPlan) -> Collected | None:
    """What is finished of `sweep`, in the order of the plan's rows; None if nothing is.

    Raises `RuacError` for an unreadable batch, or one that did not see the same objects and clicks as the first.
    """
    done = Batches(plan, sweep).done()
    folders = list(dict.fromkeys(done.values()))
    if not folders:
        return None
    results = {folder: load_results(folder) for folder in folders}
    for folder in folders[1:]:
        _check_same(folders[0], results[folders[0]], folder, results[folder])
    values, objects = [], []
    for model in plan.models():
        if model.name not in done:
            continue
        found, names = results[done[model.name]], {"row": model.row, "seed": model.seed}
        own = found.values.xs(model.name, level="model").reset_index()
        main = model.score or own.score.iloc[0]
        if main not in set(own.score):
            raise RuacError(f"row {model.row!r}: no score {main!r}, expected some of: {', '.join(own.score.unique())}")
        own = own.assign(**names, reference=own.domain.isin(found.references), main=own.score == main)
        values.append(own)
        scored = found.objects[found.objects.model == model.name]
        objects.append(scored[[*PLACE, *OBJECT_COLUMNS]].assign(**names))
    scored = pd.concat(objects, ignore_index=True)
    scored["jf"] = (scored.j + scored.f) / 2
    scored["gap"] = (scored.band_uncertainty - scored.band_error).abs()
    scored["iou_error"] = (scored.predicted_iou - scored.j).abs()
    return Collected(pd.concat(values, ignore_index=True), scored)


def _check_same(first: Path, one: Results, folder: Path, other: Results) -> None:
    """Vanilla is in every batch: where it differs, the data, the clicks or the backbone did."""
    frames = [
        results.objects[results.objects.model == VANILLA].set_index(PLACE).sort_index() for results in (one, other)
    ]
    same = frames[0].index.equals(frames[1].index) and np.allclose(frames[0].j.mean(), frames[1].j.mean(), atol=1e-3)
    if not same:
        raise RuacError(
            f"{folder}: {VANILLA} answered other objects, or otherwise, than in {first}; delete one of them"
        )
