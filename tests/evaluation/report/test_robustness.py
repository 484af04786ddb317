"""Corrupted domains: curves over severity, and no part in anything else."""

import json

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.report import build_report
from ruac.evaluation.report.robustness import robust_groups, robustness
from ruac.evaluation.results.load import load_results
from ruac.evaluation.results.names import COLUMNS

DOMAINS = ("leaves", "roads")
FOG = (("fog", "1", 1), ("fog", "5", 5), ("rain", "heavy", 3))


@pytest.fixture(scope="module")
def foggy(tmp_path_factory, make_results):
    folder = tmp_path_factory.mktemp("foggy") / "sweep"
    return make_results(folder, domains=DOMAINS, objects=2, corruptions=FOG)


@pytest.fixture(scope="module")
def loaded(foggy):
    return load_results(foggy)


def test_corrupted_domains_are_neither_unseen_nor_references(loaded):
    assert (loaded.domains, loaded.references) == (list(DOMAINS), [])
    assert len(loaded.corrupted) == len(DOMAINS) * len(FOG)
    assert set(loaded.objects.domain) == set(DOMAINS)


def test_rows_are_means_over_domains_severity_by_severity(loaded):
    fog, rain = robustness(loaded, "band")
    assert (fog["name"], [row["severity"] for row in fog["rows"]]) == ("fog", ["clean", "1", "5"])
    assert (rain["name"], [row["severity"] for row in rain["rows"]]) == ("rain", ["clean", "heavy"])
    for row, suffix in zip(fog["rows"], ("", "+fog1", "+fog5"), strict=True):
        for (column, entries), cells in zip(robust_groups(loaded), row["groups"], strict=True):
            expected = [
                loaded.values.loc[[(d + suffix, e.model, e.score, "band") for d in DOMAINS], column.key].mean()
                for e in entries
            ]
            np.testing.assert_allclose([cell["value"] for cell in cells], expected)


def test_a_domain_without_every_severity_is_left_out(foggy, tmp_path):
    loaded = load_results(foggy)
    del loaded.corrupted["roads+fog5"]
    fog, rain = robustness(loaded, "band")
    assert (fog["domains"], rain["domains"]) == (["leaves"], list(DOMAINS))


def test_page_has_curves_and_tables_but_no_corrupted_row(foggy, read_page):
    page = read_page(foggy)
    labels = [a.get("aria-label", "") for tag, a in page.tags if tag == "svg"]
    assert "ECE under fog, band" in labels
    assert not any("+fog" in label for label in labels)
    assert [row[0]["text"] for row in page.tables["band"][2:]] == [*DOMAINS, "mean"]
    words = " ".join(" ".join(page.texts).split())
    assert "4 objects in 4 images of 2 domains" in words
    assert "leaves+fog5" in words  # among the pictures


def test_a_sweep_without_corruptions_has_no_such_section(page):
    assert "robustness" not in page.ids()


def test_values_that_are_missing_leave_a_dash(foggy):
    loaded = load_results(foggy)
    loaded.values.loc[loaded.values.index.get_level_values("model") == "ruac", "prr"] = np.nan
    fog, _ = robustness(loaded, "image")
    place = [column.key for column, _ in robust_groups(loaded)].index("prr")
    assert fog["rows"][0]["groups"][place][-1]["text"] == "\u2013"
    assert "nan" not in dict(fog["charts"])[COLUMNS["prr"]]


def test_a_broken_entry_is_named(copy):
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["domains"][1]["corruption"] = "fog:3"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RuacError, match=r"manifest.json: domains\[1\]: 'corruption' is 'fog:3', expected the keys of"):
        build_report(copy)
