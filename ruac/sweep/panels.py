"""Pictures of the worst, best and most overconfident objects of a sweep, answered again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ruac.files import atomic_path
from ruac.sweep.evaluate import answer_image, objects_of

if TYPE_CHECKING:
    from ruac.sweep.runner import Sweep

CASES = ("worst", "best", "overconfident")


def write_panels(sweep: Sweep, domain: str, objects: pd.DataFrame) -> list[dict[str, Any]]:
    """Arrays of ``config.panels`` objects of each case of a domain, chosen by the last model's answers, and what to
    list of them. objects: rows of all models."""
    out, model, dataset, index = Path(sweep.config.out), list(sweep.models)[-1], sweep.domains[domain], []
    places = {record.id: place for place, record in enumerate(dataset.records)}
    chosen = _cases(objects[objects.model == model], sweep.config.panels)
    for rank, (case, row) in enumerate(chosen):
        sample = dataset[places[row.image]]
        which = sample.record.object_ids.index(row.object)
        sample = objects_of(sample, slice(which, which + 1))
        replay = None if sweep.clicks is None else sweep.clicks(domain, sample.record)
        answers = answer_image(sweep.models, sample, sweep.config.protocol, replay=replay)
        own = objects[(objects.image == row.image) & (objects.object == row.object)].set_index("model")
        arrays = {"image": sample.image, "truth": sample.masks[0]}
        for name, answer in answers.items():
            uncertainty = next(iter(answer.uncertainty.values()))[0]
            arrays[f"mask.{name}"] = answer.masks[0]
            arrays[f"uncertainty.{name}"] = (uncertainty * 255).round().byte().cpu().numpy()
            arrays[f"j.{name}"] = np.array(own.j[name])
        arrays["points"], arrays["labels"] = answers[model].points[0], answers[model].labels[0]
        file = Path("panels") / domain / f"{rank}.npz"
        with atomic_path(out / file) as path, open(path, "wb") as stream:
            np.savez_compressed(stream, **arrays)
        entry = {"domain": domain, "image": row.image, "object": row.object, "file": str(file), "case": case}
        index.append(entry | {"models": list(sweep.models)})
    return index


def _cases(rows: pd.DataFrame, count: int) -> list[tuple[str, Any]]:
    """The `count` most extreme rows of each case, the most extreme first."""
    best = rows.sort_values("j", ascending=False, kind="stable")
    worst = rows.sort_values("j", kind="stable")
    overconfidence = (rows.band_error - rows.band_uncertainty).sort_values(ascending=False, kind="stable")
    chosen = (worst.head(count), best.head(count), rows.loc[overconfidence.head(count).index])
    return [(case, row) for case, own in zip(CASES, chosen, strict=True) for row in own.itertuples()]
