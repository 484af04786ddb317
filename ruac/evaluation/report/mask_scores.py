"""A model's own guess of the IoU of its masks, and its reliability, against the IoU they reached."""

from __future__ import annotations

import numpy as np
import pandas as pd

from ruac.evaluation.metrics.scores import coverage_at, score_quality, score_sums
from ruac.evaluation.report.svg import Series, binned_chart
from ruac.evaluation.report.tables import cells
from ruac.evaluation.results.load import Results
from ruac.evaluation.results.names import MASK_SCORES

GUESSES = {"predicted_iou": "", "reliability": ", reliability"}
"""Columns of objects that guess at their IoU, and what is added to the name of the model."""
RISK = 0.25  # mean of 1 - IoU among accepted masks, at which is counted how many they are
_CLOUD = 400
_EDGES = np.linspace(0.0, 1.0, 11)


def mask_scores(results: Results) -> list[dict]:
    """Per model: a chart over all objects of the unseen domains, their number, and a table row of means over domains.

    Models whose masks and guesses are the same share a row, and so a chart. A model with a reader of reliability has
    another row for it.
    """
    groups: list[dict] = []
    colors = {entry.model: entry.color for entry in results.entries}
    asked = [(model, guess) for model in results.models for guess in GUESSES if guess in results.objects]
    for model, guess in asked:
        rows = results.objects[results.objects["model"] == model][["domain", guess, "j"]].dropna()
        rows = rows.rename(columns={guess: "predicted_iou"})
        rows[["predicted_iou", "j"]] = rows[["predicted_iou", "j"]].clip(0.0, 1.0)
        label = model + GUESSES[guess]
        twin = next((g for g in groups if np.array_equal(g["rows"].to_numpy(), rows.to_numpy())), None)
        if twin:
            twin["models"].append(label)
        elif len(rows):
            groups.append({"models": [label], "color": colors[model], "rows": rows})
    means = np.array([_quality(group["rows"]) for group in groups]).T  # [metrics, groups]
    columns = [cells(column, values) for column, values in zip(MASK_SCORES, means, strict=False)]
    return [
        {
            "models": group["models"],
            "count": len(group["rows"]),
            "cells": [column[index] for column in columns],
            "chart": _chart(", ".join(group["models"]), group["color"], group["rows"]),
        }
        for index, group in enumerate(groups)
    ]


def _quality(rows: pd.DataFrame) -> list[float]:
    """Mean over domains of every one of `MASK_SCORES`, over the domains where it has a value."""
    domains = []
    for _, own in rows.groupby("domain"):
        predicted, true = own["predicted_iou"].to_numpy(), own["j"].to_numpy()
        values = {"iou_mae": np.abs(predicted - true).mean()} | score_quality(score_sums(predicted, true))
        values["iou_coverage"] = coverage_at(predicted, true, RISK)
        domains.append([values[column.key] for column in MASK_SCORES])
    found = np.ma.masked_invalid(domains)
    return found.mean(0).filled(np.nan).tolist()


def _chart(name: str, color: int, rows: pd.DataFrame):
    rows = rows[["predicted_iou", "j"]]
    groups = rows.groupby(np.clip(np.digitize(rows["predicted_iou"], _EDGES) - 1, 0, len(_EDGES) - 2))
    means, count = groups.mean(), groups.size()
    bins = Series(
        label=f"{name}, mean IoU of the bin",
        x=means["predicted_iou"].to_numpy(),
        y=means["j"].to_numpy(),
        weight=(count / count.max()).to_numpy(),
        low=groups["j"].quantile(0.1).to_numpy(),
        high=groups["j"].quantile(0.9).to_numpy(),
        model=color,
    )
    some = rows.sample(min(len(rows), _CLOUD), random_state=0)
    cloud = Series(label="", x=some["predicted_iou"].to_numpy(), y=some["j"].to_numpy(), model=color)
    description = f"{name}: predicted IoU against true IoU"
    return binned_chart(bins, cloud, description=description, xlabel="predicted IoU", ylabel="true IoU")
