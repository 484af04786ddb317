"""The report's table over domains: every value, its mean, its mark."""

import re

import numpy as np
import pandas as pd
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.report.tables import marks
from ruac.evaluation.results.load import COUNTS, load_results
from ruac.evaluation.results.names import COLUMNS, Column


def number(cell):
    """The value of a cell; one without a value is empty."""
    return float(cell["value"] or "nan")


def test_any_score_has_a_label(copy):
    table = pd.read_csv(copy / "domains.csv")
    own = table[table.model == "ruac"].assign(score="predictive_variance")
    pd.concat([table, own, own.assign(score="<odd>")]).to_csv(copy / "domains.csv", index=False)
    labels = [entry.label for entry in load_results(copy).entries if entry.model == "ruac"]
    assert labels == ["ruac, total", "ruac, predictive variance", "ruac, <odd>"]


HIGH, LOW = Column("a", "a", True, digits=2), Column("a", "a", False, digits=2)


@pytest.mark.parametrize("region", ["image", "band"])
def test_table_holds_every_value_and_the_unweighted_mean(results, page, region):
    loaded = load_results(results)
    rows = page.tables[region]
    body, mean = rows[2:-1], rows[-1]
    assert [row[0]["text"] for row in body] == loaded.domains
    position = 1 + len(COUNTS)
    for column in loaded.columns:
        for entry in loaded.entries_of(column):
            expected = loaded.series(column, entry, region)
            np.testing.assert_allclose([number(row[position]) for row in body], expected)
            assert number(mean[position]) == pytest.approx(expected.mean(), nan_ok=True)
            assert body[0][position]["text"] == column.text(expected[0])
            position += 1
    assert all(len(row) == position for row in [*body, mean])


def test_metrics_of_the_probability_have_one_column_per_model(results):
    loaded = load_results(results)
    assert [e.label for e in loaded.entries_of(COLUMNS["ece"])] == ["vanilla", "ruac"]
    assert [e.label for e in loaded.entries_of(COLUMNS["auroc"])] == [
        "vanilla, entropy",
        "vanilla, 1 - predicted IoU",
        "ruac",
    ]


@pytest.mark.parametrize(
    ("values", "column", "expected"),
    [
        ([0.1, 0.3, 0.2], HIGH, ["", "best", "second"]),
        ([0.1, 0.3, 0.2], LOW, ["best", "", "second"]),
        ([0.301, 0.3, 0.2], HIGH, ["best", "best", ""]),  # equal as shown, and two values rank no second
        ([0.3, 0.2, 0.2, 0.1], HIGH, ["best", "second", "second", ""]),
        ([np.nan, 0.2, 0.1], LOW, ["", "", "best"]),
        ([0.2, 0.2], LOW, ["", ""]),
        ([0.2], LOW, [""]),
        ([0.1, 0.3], Column("a", "a"), ["", ""]),
    ],
)
def test_marks(values, column, expected):
    assert marks(np.array(values), column) == expected


def test_marks_reach_the_page(results, page):
    loaded = load_results(results)
    position = 1 + len(COUNTS)
    for column in loaded.columns:
        count = len(loaded.entries_of(column))
        for row in page.tables["band"][2:]:
            cells = row[position : position + count]
            expected = marks([float(cell["value"]) for cell in cells], column)
            assert [next((m for m in ("best", "second") if m in cell["class"]), "") for cell in cells] == expected
        position += count


def test_nan_is_a_dash_and_a_partial_mean_is_not_ranked(copy, edit):
    def change(table):
        table.loc[(table.domain == "camvid") & (table.model == "ruac"), "ece"] = np.nan
        return table

    page = edit(change)
    loaded = load_results(copy)
    position = 3 + sum(len(loaded.entries_of(c)) for c in loaded.columns[: loaded.columns.index(COLUMNS["ece"])]) + 1
    camvid, mean = page.tables["image"][2][position], page.tables["image"][-1][position]
    assert (camvid["text"], camvid["value"]) == ("\u2013", "")
    others = loaded.series(COLUMNS["ece"], loaded.entries[-1], "image")[1:]
    assert float(mean["value"]) == pytest.approx(others.mean())
    assert mean["text"].endswith("2")  # the number of domains behind it
    assert not {"best", "second"} & set(mean["class"])
    assert not any(re.search(r"\bnan\b", t) for t in page.texts)


def test_a_row_that_is_missing_is_a_dash(edit):
    page = edit(lambda table: table[(table.domain != "leaves") | (table.model != "ruac")])
    assert "\u2013" in [cell["text"] for cell in page.tables["image"][4]]


def test_unknown_columns_are_shown_unranked_and_other_text_is_ignored(edit):
    page = edit(lambda table: table.assign(surprise=np.arange(len(table)) / 7, remark="<i>text</i>"))
    assert "metric-surprise" in page.ids()
    assert "metric-remark" not in page.ids()
    assert any("has no words for" in t for t in page.texts)


def test_a_domain_may_be_called_na(tmp_path, make_results, read_page):
    page = read_page(make_results(tmp_path / "r", domains=("NA", "nan"), objects=1))
    assert [row[0]["text"] for row in page.tables["image"][2:-1]] == ["NA", "nan"]


def test_a_reference_has_a_row_but_no_part_in_means_counts_and_words(copy, edit, page):
    plain = load_results(copy)
    changed = edit(lambda table: table.assign(reference=table.domain == "camvid"))
    loaded = load_results(copy)
    assert (loaded.references, loaded.domains) == (["camvid"], plain.domains[1:])
    assert "camvid" not in set(loaded.objects.domain)
    for region in ("image", "band"):
        rows, before = changed.tables[region][2:], page.tables[region][2:]
        assert [row[0]["text"] for row in rows] == ["camvid (reference)", *loaded.domains, "mean"]
        assert rows[0][1:] == before[0][1:]  # its own numbers stay
        means = [float(np.mean([float(row[i]["value"]) for row in rows[1:-1]])) for i in range(3, len(rows[0]))]
        np.testing.assert_allclose([float(cell["value"]) for cell in rows[-1][3:]], means)
    words = " ".join(" ".join(changed.texts).split())
    assert "6 objects in 6 images of 2 domains" in words
    assert "Mean over 2 domains" in words
    assert "of 2 domains" in words
    labels = [a.get("aria-label", "") for tag, a in changed.tags if tag == "svg"]
    assert "Risk against coverage, camvid, band" in labels


def test_a_sweep_of_references_alone_is_refused(edit):
    with pytest.raises(RuacError, match=r"domains\.csv: expected at least one row of a domain"):
        edit(lambda table: table.assign(reference=True))
