"""The table of a sweep in Markdown and LaTeX, and its marks."""

import json

import numpy as np
import pytest

from ruac.base.errors import RuacError
from ruac.evaluation.report.table import domain_table, to_latex, to_markdown, write_tables

CSV = """domain,model,score,region,images,objects,j,auroc,ece
fog,vanilla,entropy,band,2,5,0.5,0.60,0.10
fog,ruac,total,band,2,5,0.5,0.70,0.05
NA,vanilla,entropy,band,2,1200,0.7,0.80,0.20
NA,ruac,total,band,2,1200,0.7,,0.30
fog,ruac,total,image,2,5,0.5,0.90,0.01
"""
SCORES = ["vanilla.entropy", "ruac.total"]


@pytest.fixture
def results(tmp_path):
    (tmp_path / "domains.csv").write_text(CSV)
    return tmp_path


def write_domains(folder, values, *, extra=""):
    """``values``: AUROC by model, one per domain."""
    lines = [
        f"d_{i},{model},total,band,9,9,{value}{extra}"
        for model, every in values.items()
        for i, value in enumerate(every)
    ]
    head = "domain,model,score,region,images,objects,auroc" + (",failed" if extra else "")
    (folder / "domains.csv").write_text("\n".join([head, *lines]) + "\n")


def test_rows_means_and_the_best_value(results):
    lines = to_markdown(domain_table(results, metrics=["auroc", "ece"], scores=SCORES)).splitlines()
    assert lines[0] == (
        "| domain | objects | AUROC vanilla.entropy | AUROC ruac.total | ECE vanilla.entropy | ECE ruac.total |"
    )
    assert lines[2] == "| fog | 5 | 0.600 | **0.700** | 0.1000 | **0.0500** |"
    assert lines[3] == "| NA | 1,200 | **0.800** | – | **0.2000** | 0.3000 |"  # noqa: RUF001
    assert lines[4] == "| **mean** | 1,205 | 0.700 | 0.700 | **0.1500** | 0.1750 |"


def test_a_reference_is_shown_but_not_counted(results):
    head, *rows = CSV.splitlines()
    lines = [f"reference,{head}", *(f"{row.startswith('fog')},{row}" for row in rows)]
    (results / "domains.csv").write_text("\n".join(lines))
    table = to_markdown(domain_table(results, metrics=["auroc", "ece"], scores=SCORES)).splitlines()
    assert table[2] == "| fog (reference) | 5 | 0.600 | **0.700** | 0.1000 | **0.0500** |"
    assert table[4] == "| **mean** | 1,200 | **0.800** | – | **0.2000** | 0.3000 |"  # noqa: RUF001
    (results / "domains.csv").write_text("\n".join(lines).replace("fog", "NA+fog0.06"))
    table = to_markdown(domain_table(results, metrics=["auroc", "ece"], scores=SCORES))
    assert "\n| NA+fog0.06 (reference) | 5 | 0.600 |" in table  # a folder may have any name
    corruption = {"of": "NA", "name": "fog", "severity": "0.06", "level": 1}
    domains = [{"name": "NA"}, {"name": "NA+fog0.06", "corruption": corruption}]
    (results / "manifest.json").write_text(json.dumps({"domains": domains}))
    table = to_markdown(domain_table(results, metrics=["auroc", "ece"], scores=SCORES))
    assert "\n| NA+fog0.06 (corrupted) | 5 | 0.600 |" in table


def test_a_region_of_its_own(results):
    table = to_markdown(domain_table(results, metrics=["auroc"], region="image", scores=["ruac.total"]))
    assert "| fog | 5 | 0.900 |" in table
    assert "NA" not in table


def test_second_best_ties_and_latex(tmp_path):
    write_domains(tmp_path, {"a": [0.5, 0.9, 0.8], "b": [0.7, 0.9, 0.8], "c": [0.6, 0.1, 0.8]})
    table = domain_table(tmp_path, metrics=["auroc"])
    assert [row[2] for row in table.rows][2:3] == [[("0.800", 0, False)] * 3]  # all the same: nothing to mark
    lines = to_markdown(table).splitlines()
    assert lines[2:4] == ["| d_0 | 9 | 0.500 | **0.700** | *0.600* |", "| d_1 | 9 | **0.900** | **0.900** | *0.100* |"]
    tex = to_latex(table)
    assert r"d\_0 & 9 & 0.500 & \textbf{0.700} & \underline{0.600} \\" in tex
    assert tex.index(r"d\_2") < tex.rindex(r"\midrule") < tex.index("mean")
    assert tex.count("{") == tex.count("}")


def test_only_sure_differences_from_the_baseline_are_marked(tmp_path):
    """Eight domains of one sign give p = 2 / 2^8 < 0.05; with one of the largest the other way, p > 0.05."""
    base = np.linspace(0.5, 0.7, 8)
    better, mixed = base + 0.01 * np.arange(1, 9), base + 0.01 * np.array([1, 2, 3, 4, 5, -6, 7, -8])
    write_domains(tmp_path, {"base": base, "better": better, "mixed": mixed})
    table = domain_table(tmp_path, metrics=["auroc"])
    assert [cell.sure for cell in table.rows[-1][2]] == [False, True, False]
    assert not any(cell.sure for _, _, cells in table.rows[:-1] for cell in cells)
    assert "† differs from base.total: Wilcoxon signed-rank test over 8 domains, p < 0.05" in to_markdown(table)
    assert r"$^\dagger$" in to_latex(table)
    other = domain_table(tmp_path, metrics=["auroc"], baseline="better.total")
    assert [cell.sure for cell in other.rows[-1][2]] == [True, False, False]  # two domains only differ


def test_images_that_could_not_be_read_are_mentioned_and_both_files_written(tmp_path):
    write_domains(tmp_path, {"jf": [0.5, 0.6]}, extra=",2")
    (tmp_path / "domains.csv").write_text(
        (tmp_path / "domains.csv").read_text().replace("auroc", "jf,ece,auroc,aurc").replace(",2", ",0,0,0,2")
    )
    path = write_tables(tmp_path)
    assert path == tmp_path / "table.md"
    for text in (path.read_text(), (tmp_path / "table.tex").read_text()):
        assert "4 images could not be read" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["aurok"], "scores": SCORES}, "no metric 'aurok'.*auroc"),
        ({"metrics": ["ece"], "scores": ["ruac.entropy"]}, "no score 'ruac.entropy'.*ruac.total"),
        ({"metrics": ["ece"], "scores": SCORES, "region": "edge"}, "no region 'edge'.*band, image"),
        ({"metrics": ["ece"], "scores": SCORES, "baseline": "x"}, "no baseline 'x'.*vanilla.entropy"),
    ],
)
def test_unknown_names_are_named(results, options, message):
    with pytest.raises(RuacError, match=message):
        domain_table(results, **options)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(RuacError, match=r"domains\.csv: cannot be read"):
        domain_table(tmp_path, metrics=["ece"], scores=SCORES)
