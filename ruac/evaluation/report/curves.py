"""Curves over pixels, from a sweep's sums: reliability, risk against coverage, PAvPU over thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from ruac.base.arrays import load_arrays
from ruac.base.errors import RuacError, brief
from ruac.evaluation.metrics.bins import UNCERTAINTY_EDGES
from ruac.evaluation.metrics.calibration import reliability_curve
from ruac.evaluation.metrics.certainty import pavpu, quadrants
from ruac.evaluation.metrics.ranking import risk_coverage_curve
from ruac.evaluation.metrics.reliability import ReliabilitySums
from ruac.evaluation.report.svg import Series, line_chart
from ruac.evaluation.results.load import Entry, Results

THRESHOLDS = np.linspace(0.0, 1.0, 41)
_LARGE = (460, 394)  # two small charts and the gap between them, so that text has one size


@dataclass(frozen=True)
class Counts:
    """confidence ``[3, 15]``: pixels, correct ones and the sum of confidence per bin of ECE. uncertainty ``[2, U]``:
    correct and wrong pixels per fine bin."""

    confidence: np.ndarray
    uncertainty: np.ndarray

    def shares(self) -> Counts:
        """The same divided by the number of pixels."""
        total = max(self.uncertainty.sum(), 1)
        return Counts(self.confidence / total, self.uncertainty / total)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.confidence + other.confidence, self.uncertainty + other.uncertainty)


class Curves(NamedTuple):
    """The charts of a domain, or of all unseen domains, where `domain` is None."""

    domain: str | None
    reliability: Markup
    risk: Markup
    pavpu: Markup


def curve_charts(results: Results, region: str) -> list[Curves]:
    """Of all unseen domains, each weighing the same, then of every reference and domain.

    Raises `RuacError` naming a file of sums that is missing or broken.
    """
    lines, pooled = [], {}
    for domain in results.references + results.domains:
        own = {}
        for entry in results.entries:
            if (domain, entry.model, entry.score, region) not in results.values.index:
                continue
            counts = _read_counts(results.folder / "sums" / f"{entry.model}.{entry.score}.{region}.{domain}.npz")
            own[entry] = _lines(entry, counts)
            if domain in results.domains:
                pooled[entry] = pooled[entry] + counts.shares() if entry in pooled else counts.shares()
        lines.append((domain, own))
    if len(results.domains) > 1:
        lines.insert(0, (None, {entry: _lines(entry, pooled[entry]) for entry in results.entries if entry in pooled}))
    lowest = min((np.nanmin(r.y) for _, own in lines for r, *_ in own.values() if np.isfinite(r.y).any()), default=0.5)
    # One scale for all diagrams of a page, so that they can be compared.
    floor = 0.5 if lowest >= 0.5 else float(np.floor(10 * lowest) / 10)
    return [_charts(domain, list(own.values()), region, floor) for domain, own in lines]


def _lines(entry: Entry, counts: Counts) -> tuple[Series, Series, Series]:
    look = {"label": entry.label, "model": entry.color, "style": entry.style}
    confidence, accuracy, share = reliability_curve(*counts.confidence)
    coverage, error = risk_coverage_curve(*counts.uncertainty)
    # Pixels that tie for most certain are in random order: any part of them has the error rate of all.
    coverage, error = np.append(0.0, coverage), np.append(error[:1] if len(error) else np.nan, error)
    agreeing = pavpu(quadrants(*counts.uncertainty, UNCERTAINTY_EDGES, THRESHOLDS))
    return (
        Series(x=confidence, y=accuracy, weight=share, **look),
        Series(x=coverage, y=100.0 * error, **look),
        Series(x=THRESHOLDS, y=agreeing, **look),
    )


def _charts(domain: str | None, lines: list[tuple[Series, Series, Series]], region: str, floor: float) -> Curves:
    reliability, risk, agreeing = ([own[i] for own in lines] for i in range(3))
    # A second score of the same model has the same probabilities: one curve is enough.
    distinct = [
        line
        for i, line in enumerate(reliability)
        if not any(s.model == line.model and np.array_equal(s.y, line.y, equal_nan=True) for s in reliability[:i])
    ]
    size = {"size": _LARGE} if domain is None else {}
    where = f"{'all domains' if domain is None else domain}, {region}"
    return Curves(
        domain,
        line_chart(
            distinct,
            description=f"Reliability diagram, {where}",
            xlabel="confidence",
            ylabel="share right",
            xlim=(0.5, 1.0),
            ylim=(floor, 1.0),
            diagonal=True,
            **size,
        ),
        line_chart(
            risk, description=f"Risk against coverage, {where}", xlabel="pixels kept", ylabel="wrong, %", **size
        ),
        line_chart(
            agreeing,
            description=f"PAvPU over thresholds, {where}",
            xlabel="threshold of uncertainty",
            ylabel="PAvPU",
            ylim=(0.0, 1.0),
            **size,
        ),
    )


def _read_counts(path: Path) -> Counts:
    try:
        sums = ReliabilitySums.from_arrays(load_arrays(path))
    except FileNotFoundError:
        raise RuacError(f"{path}: sums not found") from None
    except RuacError as error:
        raise RuacError(f"{path}: {error}") from error
    except (KeyError, ValueError) as error:
        raise RuacError(f"{path}: not readable as sums: {brief(error)}") from error
    return Counts(np.array(sums.confidence_bins()), sums.uncertainty)
