"""A figure per table; matplotlib is imported when the first is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ruac.studies.reliability_study.config import NONE
from ruac.studies.reliability_study.plan import SOURCE
from ruac.studies.reliability_study.tables import DOMAIN, RADAR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 220  # area of the marker of the largest model, in points squared
LABELS = {SOURCE: "held-out source", DOMAIN: "unseen domains"}


def error_ece(table: pd.DataFrame, region: str) -> Figure:
    """A panel per calibration, a colour per model; filled: the source, a star: the mean over unseen domains."""
    own = table[table.region == region]
    calibrations = list(dict.fromkeys(own.calibration))
    figure, panels = _panels(len(calibrations), width=2.8, sharex=True, sharey=True)
    for axes, calibration in zip(panels, calibrations, strict=True):
        here = own[own.calibration == calibration]
        for color, (model, points) in enumerate(here.groupby("model", sort=False)):
            area = LARGEST * points.parameters.iloc[0] / own.parameters.max()
            for chosen, marker, fill in (
                (points.place == SOURCE, "s", f"C{color}"),
                ((points.place == DOMAIN) & (points.domain != "mean"), "o", "none"),
                (points.domain == "mean", "*", f"C{color}"),
            ):
                spots = points[chosen]
                axes.scatter(spots.error, spots.ece, s=area, marker=marker, facecolors=fill, edgecolors=f"C{color}")
            axes.plot([], [], "o", color=f"C{color}", label=f"{model}, {points.parameters.iloc[0] / 1e6:.1f} M")
        axes.set(title=calibration, xlabel="1 - J&F")
    panels[0].set_ylabel(f"ECE, {region}")
    panels[0].legend(title="square: source, star: mean of domains", fontsize=7, title_fontsize=7)
    return figure


def calibration_ece(table: pd.DataFrame, region: str) -> Figure:
    """Bars of every calibration, on the source and as a mean over domains."""
    own = table[table.region == region]
    models = list(dict.fromkeys(own.model))
    figure, panels = _panels(len(models), sharey=True)
    for axes, model in zip(panels, models, strict=True):
        here = own[own.model == model]
        place = np.arange(len(here))
        for shift, column, label in ((-0.2, "source_ece", LABELS[SOURCE]), (0.2, "domains_ece", LABELS[DOMAIN])):
            axes.bar(place + shift, here[column], 0.4, label=label)
        axes.set_xticks(place, here.calibration, rotation=40, ha="right")
        axes.set_title(model)
    panels[0].set_ylabel(f"ECE, {region}")
    panels[0].legend()
    return figure


def cluster_ece(table: pd.DataFrame, region: str) -> Figure:
    return _ablation(table, region, "clusters", "clusters (1: temperature)")


def pixel_ece(table: pd.DataFrame, region: str) -> Figure:
    return _ablation(table, region, "pixels", "pixels per picture")


def ranking(table: pd.DataFrame, region: str) -> Figure:
    """PRR above, OOD AUROC below, against J&F: a panel per model, a colour per calibration, a point per data set."""
    own = table[table.region == region]
    models = list(dict.fromkeys(own.model))
    figure, panels = _panels(len(models), rows=2, sharex=True, sharey="row")
    for place, (metric, label) in enumerate((("prr", "PRR, %"), ("ood_auroc", "OOD AUROC"))):
        for column, model in enumerate(models):
            axes = panels[place * len(models) + column]
            for calibration, points in own[own.model == model].groupby("calibration", sort=False):
                source = points[points.place == SOURCE]
                line = axes.plot(points.jf, points[metric], ".", label=calibration)[0]
                axes.plot(source.jf, source[metric], "s", color=line.get_color())
            axes.set_title(model if not place else "")
            axes.set_xlabel("J&F (square: source)" if place else "")
        panels[place * len(models)].set_ylabel(f"{label}, {region}")
    panels[0].legend(fontsize=7)
    return figure


def weather_rss(table: pd.DataFrame, region: str) -> Figure:
    """A curve of RSS per corruption, and a radar of its four terms at the strongest severity; a colour per row."""
    own = table[table.region == region]
    names = [name for name in dict.fromkeys(own.corruption) if name]
    figure = _figure(figsize=(4.2 * len(names), 7))
    angle = np.linspace(0, 2 * np.pi, len(RADAR) + 1)
    for column, name in enumerate(names):
        curves = figure.add_subplot(2, len(names), column + 1)
        radar = figure.add_subplot(2, len(names), len(names) + column + 1, projection="polar")
        for model, calibration in own[["model", "calibration"]].drop_duplicates().itertuples(index=False):
            here = own[(own.model == model) & (own.calibration == calibration)]
            here = here[here.corruption.isin(["", name])].sort_values("level")
            label = f"{model}, {calibration}"
            style = "-" if calibration == NONE else "--"
            curves.plot(here.level, here.rss, f"o{style}", label=label)
            worst = here.iloc[-1][list(RADAR)].astype(float).tolist()
            radar.plot(angle, [*worst, worst[0]], style, label=label)
        ticks = own[own.corruption.isin(["", name])][["level", "severity"]].drop_duplicates().sort_values("level")
        curves.set_xticks(ticks.level, [text or "clean" for text in ticks.severity])
        curves.set(title=name, xlabel="severity", ylabel=f"RSS, {region}")
        radar.set_xticks(angle[:-1], list(RADAR.values()))
        radar.set_ylim(0, 1)
        radar.set_title(f"{name}, {ticks.severity.iloc[-1]}", pad=16)
        if not column:
            curves.legend(fontsize=6)
    return figure


def conformal(table: pd.DataFrame, region: str) -> Figure:
    """Coverage of outer masks and purity of inner ones above, sizes below, data set by data set."""
    figure, panels = _panels(1, rows=2, sharex=True, width=9)
    names = list(dict.fromkeys(table.domain))
    for model, calibration in table[["model", "calibration"]].drop_duplicates().itertuples(index=False):
        here = table[(table.model == model) & (table.calibration == calibration)].set_index("domain").reindex(names)
        for axes, columns in zip(panels, (("coverage", "purity"), ("outer_size", "inner_size")), strict=True):
            line = axes.plot(names, here[columns[0]], "o", label=f"{model}, {calibration}: {columns[0]}")[0]
            axes.plot(names, here[columns[1]], "x", color=line.get_color(), label=columns[1])
    panels[0].set_ylabel("share, means over pictures")
    panels[1].set(ylabel="areas of the object, medians", yscale="symlog")
    panels[1].tick_params(axis="x", rotation=90)
    for axes in panels:
        axes.legend(fontsize=6)
    return figure


FIGURES: dict[str, Callable[[pd.DataFrame, str], Figure]] = {
    one.__name__: one for one in (error_ece, calibration_ece, cluster_ece, pixel_ece, ranking, weather_rss, conformal)
}


def _ablation(table: pd.DataFrame, region: str, number: str, label: str) -> Figure:
    figure, (axes,) = _panels(1)
    for (model, place), here in table[table.region == region].groupby(["model", "place"], sort=False):
        here = here.sort_values(number)
        axes.plot(here[number], here.ece, "o-", label=f"{model}, {LABELS[place]}")
    axes.set(xscale="log", xlabel=label, ylabel=f"ECE, {region}")
    axes.legend()
    return figure


def _figure(**settings) -> Figure:
    from matplotlib.figure import Figure  # half a second, which a dry run need not wait for

    return Figure(layout="constrained", **settings)


def _panels(columns: int, *, rows: int = 1, width: float = 4.2, **shared) -> tuple[Figure, list]:
    figure = _figure(figsize=(width * columns if columns > 1 else max(width, 5), 3.6 * rows))
    return figure, list(figure.subplots(rows, columns, squeeze=False, **shared).flat)
