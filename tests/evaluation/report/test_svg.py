import re
from xml.etree import ElementTree

import numpy as np
import pytest

from ruac.evaluation.report.svg import Frame, Series, binned_chart, dot_chart, line_chart

ODD = "<b>&\"odd'"


def parse(svg):
    return ElementTree.fromstring(str(svg))


def elements(svg, tag, word):
    return [e for e in parse(svg).iter(tag) if word in e.get("class", "").split()]


def vertices(path):
    return np.array([[float(v) for v in pair.split()] for pair in re.split("[ML]", path.get("d"))[1:]])


def line(series, **options):
    return line_chart(series, description="d", xlabel="x", ylabel="y", **options)


def test_frame_maps_corners_of_the_data_to_corners_of_the_plot():
    frame = Frame(width=100, height=80, xlim=(2, 4), ylim=(0, 10), margins=(10, 5, 7, 13))
    np.testing.assert_allclose(frame.x([2, 3, 4]), [10, 52.5, 95])
    np.testing.assert_allclose(frame.y([0, 10]), [67, 7])


def test_curve_lies_where_the_frame_puts_it():
    x, y = np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.5, 1.0])
    svg = line([Series(label="s", x=x, y=y, model=3, style=1)], ylim=(0, 1))
    (curve,) = elements(svg, "path", "curve")
    frame = Frame(width=220, height=190, xlim=(0, 1), ylim=(0, 1))
    np.testing.assert_allclose(vertices(curve), np.stack([frame.x(x), frame.y(y)], 1), atol=0.05)
    assert {"m3", "d1"} <= set(curve.get("class").split())


def test_values_that_are_not_finite_are_left_out():
    x = np.array([0.0, np.nan, 0.5, 1.0])
    y = np.array([0.1, 0.2, np.inf, 0.3])
    svg = line([Series(label="s", x=x, y=y, weight=np.ones(4)), Series(label="none", x=x[:0], y=y[:0])])
    assert len(elements(svg, "circle", "dot")) == 2
    assert "nan" not in svg
    assert "inf" not in svg


def test_long_curves_are_thinned_along_x_and_keep_their_ends():
    x = 1 - np.geomspace(1, 1e-6, 5000)  # crowded at the right
    svg = line([Series(label="s", x=x, y=x**2)])
    (curve,) = elements(svg, "path", "curve")
    points = vertices(curve)
    assert len(points) <= 64
    assert np.diff(points[:, 0]).max() < 2.2 * (220 - 42) / 63
    np.testing.assert_allclose(points[[0, -1], 0], [34, 212], atol=0.1)


def test_y_axis_reaches_above_every_value():
    values = np.array([0.0, 7.3])
    svg = line([Series(label="s", x=np.array([0.0, 1.0]), y=values)])
    assert vertices(elements(svg, "path", "curve")[0])[:, 1].min() >= 20


def test_names_are_escaped():
    series = Series(label=ODD, x=np.array([0.0, 1.0]), y=np.array([0.0, 1.0]))
    svg = line_chart([series], description=ODD, xlabel=ODD, ylabel=ODD)
    assert parse(svg).get("aria-label") == ODD
    assert "<b>" not in svg
    assert ODD in [e.text for e in parse(svg).iter("text")]


@pytest.mark.parametrize("missing", [False, True])
def test_dot_chart_has_a_dot_per_value_and_the_span_of_each_row(missing):
    first, second = np.array([0.2, 0.4, 0.3]), np.array([0.1, 0.5, np.nan if missing else 0.3])
    rows = np.arange(3)
    series = [Series(label="a", x=first, y=rows), Series(label="b", x=second, y=rows, model=1)]
    svg = dot_chart(["one", "a domain of a very long name", "mean"], series, description="d", digits=3)
    dots = elements(svg, "circle", "dot")
    assert [e.find("title").text for e in dots][:4] == ["a: 0.200", "a: 0.400", "a: 0.300", "b: 0.100"]
    assert len(dots) == (5 if missing else 6)
    span = vertices(elements(svg, "path", "span")[0])[:, 0]
    np.testing.assert_allclose(span, sorted(float(d.get("cx")) for d in (dots[0], dots[3])), atol=0.05)
    assert any(e.find("title").text == "a domain of a very long name" for e in elements(svg, "text", "row"))
    assert [e.text for e in elements(svg, "text", "mean")] == ["mean"]


def test_dot_chart_without_a_value_is_still_drawn():
    empty = Series(label="a", x=np.full(2, np.nan), y=np.arange(2))
    assert not elements(dot_chart(["one", "mean"], [empty], description="d", digits=3), "circle", "dot")


def test_binned_chart_draws_ranges_and_cloud():
    at = np.array([0.3, 0.8])
    bins = Series(label="m", x=at, y=at - 0.1, low=at - 0.2, high=at, weight=np.array([0.5, 1.0]))
    cloud = Series(label="", x=np.full(7, 0.5), y=np.linspace(0, 1, 7))
    svg = binned_chart(bins, cloud, description="d", xlabel="x", ylabel="y")
    frame = Frame(width=300, height=280, xlim=(0, 1), ylim=(0, 1))
    bars = [vertices(p)[:, 1] for p in elements(svg, "path", "range")]
    np.testing.assert_allclose(bars, np.stack([frame.y(at - 0.2), frame.y(at)], 1), atol=0.05)
    assert len(elements(svg, "circle", "cloud")) == 7
