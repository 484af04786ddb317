"""The report's charts, drawn as small SVG elements.

Text stays text and colours are CSS classes (``m0``, ``m1``, ... one per model; ``d0``, ``d1``, ... one
line style per uncertainty score), so that a chart follows the page into dark mode, onto a phone and onto paper.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import MaxNLocator

_MAX_POINTS = 64
_STEPS = [1, 2, 2.5, 5, 10]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A named set of points. Points with a value that is not finite are left out.

    model, style: indices of the CSS classes for colour and line style. weight: ``[n]`` in [0, 1], dot areas.
    low, high: ``[n]`` ends of a vertical range per point.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    model: int = 0
    style: int = 0
    weight: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None

    @property
    def classes(self) -> str:
        return f"m{self.model} d{self.style}"


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Maps data to the plot area of an SVG ``[width, height]``; margins in (left, right, top, bottom) units."""

    width: float
    height: float
    xlim: tuple[float, float]
    ylim: tuple[float, float]
    margins: tuple[float, float, float, float] = (34, 8, 20, 30)

    def x(self, value):
        left, right, _, _ = self.margins
        return left + (np.asarray(value) - self.xlim[0]) / (self.xlim[1] - self.xlim[0]) * (self.width - left - right)

    def y(self, value):
        _, _, top, bottom = self.margins
        share = (np.asarray(value) - self.ylim[0]) / (self.ylim[1] - self.ylim[0])
        return self.height - bottom - share * (self.height - top - bottom)


def line_chart(
    series: list[Series],
    *,
    description: str,
    xlabel: str,
    ylabel: str,
    xlim: tuple[float, float] = (0.0, 1.0),
    ylim: tuple[float, float] | None = None,
    xticks: dict[float, str] | None = None,
    diagonal: bool = False,
    size: tuple[float, float] = (220, 190),
) -> Markup:
    """Curves over a common pair of axes.

    series: of each, at most 64 points are drawn; x has to ascend where there are more. Dots are added where a
    series has weights. ylim: from 0 to above the largest value when left out. xticks: texts by place, round numbers
    when left out. diagonal: draw y = x. description: read out instead of the drawing.
    """
    kept = [_finite(item) for item in series]
    frame = Frame(width=size[0], height=size[1], xlim=xlim, ylim=ylim or (0.0, _ceiling(kept)))
    parts = [_axes(frame, xlabel, ylabel, xticks)]
    if diagonal:
        ends = max(frame.xlim[0], frame.ylim[0]), min(frame.xlim[1], frame.ylim[1])
        parts.append(_path("diagonal", frame.x(ends), frame.y(ends)))
    for item in kept:
        pick = np.arange(len(item.x))
        if len(pick) > _MAX_POINTS:
            pick = np.unique(np.searchsorted(item.x, np.linspace(item.x[0], item.x[-1], _MAX_POINTS)))
        parts.append(_path(f"curve {item.classes}", frame.x(item.x[pick]), frame.y(item.y[pick]), item.label))
        if item.weight is not None:
            radii = 1.4 + 3.0 * np.sqrt(np.clip(item.weight, 0.0, 1.0))
            parts += _dots(frame, item, radii)
    return _svg(frame, description, parts)


def binned_chart(
    bins: Series,
    cloud: Series,
    *,
    description: str,
    xlabel: str,
    ylabel: str,
    size: tuple[float, float] = (300, 280),
) -> Markup:
    """A pale cloud of points with bin means and their ranges on top; both axes run over [0, 1]."""
    frame = Frame(width=size[0], height=size[1], xlim=(0.0, 1.0), ylim=(0.0, 1.0))
    cloud, bins = _finite(cloud), _finite(bins)
    parts = [_axes(frame, xlabel, ylabel), _path("diagonal", frame.x((0, 1)), frame.y((0, 1)))]
    parts += [
        Markup('<circle class="cloud {}" cx="{:.1f}" cy="{:.1f}" r="1.5"/>').format(cloud.classes, x, y)
        for x, y in zip(frame.x(cloud.x), frame.y(cloud.y), strict=True)
    ]
    for x, low, high in zip(frame.x(bins.x), frame.y(bins.low), frame.y(bins.high), strict=True):
        parts.append(_path(f"range {bins.classes}", (x, x), (low, high)))
    parts.append(_path(f"curve {bins.classes}", frame.x(bins.x), frame.y(bins.y), bins.label))
    parts += _dots(frame, bins, 2.5 + 3.5 * np.sqrt(np.clip(bins.weight, 0.0, 1.0)))
    return _svg(frame, description, parts)


def dot_chart(names: list[str], series: list[Series], *, description: str, digits: int, width: float = 380) -> Markup:
    """One row per name, one dot per series; the last row is set apart as the mean.

    series: ``x [n]`` are the values and ``y [n]`` the row numbers.
    """
    values = np.concatenate([item.x[np.isfinite(item.x)] for item in series])
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    pad = max(0.06 * (high - low), 10.0**-digits)
    margins = (118, 12, 8, 24)
    frame = Frame(
        width=width,
        height=20 * len(names) + margins[2] + margins[3],
        xlim=(low - pad, high + pad),
        ylim=(len(names) - 0.5, -0.5),
        margins=margins,
    )
    parts = []
    for tick in _ticks(frame.xlim, 5):
        x = frame.x(tick)
        parts.append(_path("grid", (x, x), (margins[2], frame.height - margins[3])))
        parts.append(_text(x, frame.height - 9, f"{tick:g}", "tick", "middle"))
    spread = np.array([[item.x[row] for item in series] for row in range(len(names))])
    for row, name in enumerate(names):
        y, found = float(frame.y(row)), spread[row][np.isfinite(spread[row])]
        if row == len(names) - 1:
            rule = float(frame.y(row - 0.5))
            parts.append(_path("axis", (8, width - margins[1]), (rule, rule)))
        if len(found):
            parts.append(_path("span", frame.x((found.min(), found.max())), (y, y)))
        short = name if len(name) <= 16 else name[:15] + "…"
        label = _text(margins[0] - 10, y + 4, short, "row mean" if row == len(names) - 1 else "row", "end", name)
        parts.append(label)
    for item in series:
        parts += _dots(frame, _finite(item), np.full(len(item.x), 4.6), of_x=True, digits=digits)
    return _svg(frame, description, parts)


def radar_chart(
    spokes: list[tuple[str, str]],
    series: list[Series],
    *,
    limit: float,
    rings: dict[float, str],
    description: str,
    size: tuple[float, float] = (400, 320),
) -> Markup:
    """One closed line per series over spokes that start at the top and go clockwise.

    spokes: label and link of each. series: y ``[spokes]`` runs from -limit, the centre, to limit, the rim; values
    beyond are drawn there. rings: texts by value; the ring of 0 is emphasised.
    """
    radius, middle = 0.36 * size[1], (size[0] / 2, size[1] / 2)
    angles = 2 * np.pi * np.arange(len(spokes)) / len(spokes)

    def place(values: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        reach = radius * (np.clip(values, -limit, limit) / limit + 1) / 2
        return middle[0] + reach * np.sin(where), middle[1] - reach * np.cos(where)

    parts = []
    for value in rings:
        ring = place(np.full(len(spokes) + 1, value), np.append(angles, 0.0))
        parts.append(_path("axis" if value == 0 else "grid", *ring))
    for angle, (label, link) in zip(angles, spokes, strict=True):
        tip = place(np.array([-limit, limit]), np.array([angle, angle]))
        x, y = middle[0] + (radius + 9) * np.sin(angle), middle[1] - (radius + 9) * np.cos(angle)
        anchor = "middle" if abs(np.sin(angle)) < 0.1 else "start" if np.sin(angle) > 0 else "end"
        text = _text(x, y + 4 - 4 * np.cos(angle), label, "row", anchor)
        parts += [_path("grid", *tip), Markup('<a href="{}">{}</a>').format(link, text)]
    for item in series:
        keep = np.isfinite(item.y)
        x, y = place(item.y[keep], angles[keep])
        parts.append(_path(f"curve {item.classes}", np.append(x, x[:1]), np.append(y, y[:1]), item.label))
        titles = [f"{item.label}, {spokes[i][0]}: {100 * item.y[i]:+.1f} %" for i in np.flatnonzero(keep)]
        parts += [_dot(item.classes, *at, 3.2, title) for *at, title in zip(x, y, titles, strict=True)]
    for value, text in rings.items():
        x, y = (ends.mean() for ends in place(np.full(2, value), angles[:2]))  # between the first two spokes
        parts.append(_text(x, y + 3, text, "tick", "middle"))
    return _svg(Frame(width=size[0], height=size[1], xlim=(0, 1), ylim=(0, 1)), description, parts)


def _finite(item: Series) -> Series:
    keep = np.isfinite(item.x) & np.isfinite(item.y)

    def take(values):
        return None if values is None else np.asarray(values)[keep]

    arrays = {name: take(getattr(item, name)) for name in ("x", "y", "weight", "low", "high")}
    return replace(item, **arrays)


def _ceiling(series: list[Series]) -> float:
    """A round number above every value, so that the top tick is on the frame."""
    top = max((float(item.y.max()) for item in series if len(item.y)), default=1.0)
    return float(MaxNLocator(3, steps=_STEPS).tick_values(0.0, top or 1.0)[-1])


def _ticks(limits: tuple[float, float], count: int) -> list[float]:
    low, high = sorted(limits)
    slack = 1e-9 * (high - low)
    return [
        round(float(t), 12)
        for t in MaxNLocator(count, steps=_STEPS).tick_values(low, high)
        if low - slack <= t <= high + slack
    ]


def _axes(frame: Frame, xlabel: str, ylabel: str, xticks: dict[float, str] | None = None) -> Markup:
    left, right, top, bottom = frame.margins
    base = frame.height - bottom
    parts = []
    for tick, text in (xticks or {tick: f"{tick:g}" for tick in _ticks(frame.xlim, 3)}).items():
        x = frame.x(tick)
        parts += [_path("grid", (x, x), (top, base)), _text(x, base + 12, text, "tick", "middle")]
    for tick in _ticks(frame.ylim, 3):
        y = frame.y(tick)
        parts += [_path("grid", (left, frame.width - right), (y, y))]
        parts += [_text(left - 5, y + 3.5, f"{tick:g}", "tick", "end")]
    parts.append(_path("axis", (left, left, frame.width - right), (top, base, base)))
    parts.append(_text(frame.width - right, frame.height - 4, xlabel, "name", "end"))
    parts.append(_text(2, 11, ylabel, "name", "start"))
    return Markup("").join(parts)


def _path(classes: str, xs, ys, title: str | None = None) -> Markup:
    if len(xs) < 2:
        return Markup("")
    points = "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))
    return Markup('<path class="{}" d="M{}">{}</path>').format(classes, points, _title(title))


def _dots(frame: Frame, item: Series, radii: np.ndarray, of_x: bool = False, digits: int = 3) -> list[Markup]:
    shown = item.x if of_x else item.y
    return [
        _dot(item.classes, x, y, r, f"{item.label}: {value:.{digits}f}")
        for x, y, r, value in zip(frame.x(item.x), frame.y(item.y), radii[: len(item.x)], shown, strict=True)
    ]


def _dot(classes: str, x: float, y: float, radius: float, title: str) -> Markup:
    element = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}">{}</circle>')
    return element.format(classes, x, y, radius, _title(title))


def _text(x: float, y: float, text: str, classes: str, anchor: str, title: str | None = None) -> Markup:
    element = Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}{}</text>')
    return element.format(classes, float(x), float(y), anchor, text, _title(title))


def _title(text: str | None) -> Markup:
    return Markup("") if text is None else Markup("<title>{}</title>").format(text)


def _svg(frame: Frame, description: str, parts: list[Markup]) -> Markup:
    head = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
    return head.format(frame.width, frame.height, description) + Markup("").join(parts) + Markup("</svg>")
