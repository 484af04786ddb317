"""Pictures of the worst, best and most overconfident objects of a sweep, answered again."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ruac.base.files import atomic_path
from ruac.evaluation.results.schema import CASES
from ruac.evaluation.score import Encodings, answer_image, objects_of
from ruac.evaluation.sweep.opened import Sweep


class Panel(NamedTuple):
    """One of the pictures. rank: its place in its domain. entry: what is listed of it, "file" relative to the result
    folder. j: of each model."""

    rank: int
    entry: dict[str, Any]
    j: dict[str, float]


def choose_panels(sweep: Sweep, domain: str, objects: pd.DataFrame) -> list[list[Panel]]:
    """``config.panels`` objects of each case of a domain, by the last model's answers; those of an image together.

    objects: rows of all models.
    """
    models, images = list(sweep.models), defaultdict(list)
    for rank, (case, row) in enumerate(_cases(objects[objects.model == models[-1]], sweep.config.panels)):
        own = objects[(objects.image == row.image) & (objects.object == row.object)].set_index("model")
        file = str(Path("panels") / domain / f"{rank}.npz")
        entry = {"domain": domain, "image": row.image, "object": row.object, "file": file, "case": case}
        j = {name: float(own.j[name]) for name in models}
        images[row.image].append(Panel(rank, entry | {"models": models}, j))
    return list(images.values())


def write_panels(sweep: Sweep, panels: list[Panel]) -> None:
    """Arrays of the panels of one image, which is encoded once."""
    domain, image = panels[0].entry["domain"], panels[0].entry["image"]
    dataset = sweep.domains[domain]
    (place,) = (place for place, record in enumerate(dataset.records) if record.id == image)
    whole = dataset[place]
    encodings = Encodings(whole.image)
    for panel in panels:
        which = whole.record.object_ids.index(panel.entry["object"])
        sample = objects_of(whole, slice(which, which + 1))
        replay = None if sweep.clicks is None else sweep.clicks(domain, sample.record)
        answers = answer_image(sweep.models, sample, sweep.config.protocol, replay=replay, encodings=encodings)
        arrays = {"image": sample.image, "truth": sample.masks[0]}
        for name, answer in answers.items():
            uncertainty = next(iter(answer.uncertainty.values()))[0]
            arrays[f"mask.{name}"] = answer.masks[0]
            arrays[f"uncertainty.{name}"] = (uncertainty * 255).round().byte().cpu().numpy()
            arrays[f"j.{name}"] = np.array(panel.j[name])
        last = answers[panel.entry["models"][-1]]
        arrays["points"], arrays["labels"] = last.points[0], last.labels[0]
        with atomic_path(sweep.out / panel.entry["file"]) as path, open(path, "wb") as stream:
            np.savez_compressed(stream, **arrays)


def _cases(rows: pd.DataFrame, count: int) -> list[tuple[str, Any]]:
    """The `count` most extreme rows of each case, the most extreme first."""
    best = rows.sort_values("j", ascending=False, kind="stable")
    worst = rows.sort_values("j", kind="stable")
    overconfidence = (rows.band_error - rows.band_uncertainty).sort_values(ascending=False, kind="stable")
    chosen = {
        "worst": worst.head(count),
        "best": best.head(count),
        "overconfident": rows.loc[overconfidence.head(count).index],
    }
    assert set(chosen) == set(CASES)
    return [(case, row) for case, own in chosen.items() for row in own.itertuples()]
