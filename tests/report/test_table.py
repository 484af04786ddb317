"""The Markdown table of a sweep."""

import pytest

from ruac.errors import RuacError
from ruac.report.table import markdown_table

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


def test_rows_means_and_the_best_value(results):
    lines = markdown_table(results, metrics=["auroc", "ece"], scores=SCORES).splitlines()
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
    table = markdown_table(results, metrics=["auroc", "ece"], scores=SCORES).splitlines()
    assert table[2] == "| fog (reference) | 5 | 0.600 | **0.700** | 0.1000 | **0.0500** |"
    assert table[4] == "| **mean** | 1,200 | **0.800** | – | **0.2000** | 0.3000 |"  # noqa: RUF001


def test_a_region_of_its_own(results):
    table = markdown_table(results, metrics=["auroc"], region="image", scores=["ruac.total"])
    assert "| fog | 5 | 0.900 |" in table
    assert "NA" not in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["aurok"], "scores": SCORES}, "no metric 'aurok'.*auroc"),
        ({"metrics": ["ece"], "scores": ["ruac.entropy"]}, "no score 'ruac.entropy'.*ruac.total"),
        ({"metrics": ["ece"], "scores": SCORES, "region": "edge"}, "no region 'edge'.*band, image"),
    ],
)
def test_unknown_names_are_named(results, options, message):
    with pytest.raises(RuacError, match=message):
        markdown_table(results, **options)


def test_a_folder_without_results(tmp_path):
    with pytest.raises(RuacError, match=r"domains\.csv: cannot be read"):
        markdown_table(tmp_path, metrics=["ece"], scores=SCORES)
