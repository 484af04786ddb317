"""What is said of a model, in words: no more than the numbers allow."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ruac.evaluation.report.statements import statements
from ruac.evaluation.results.load import load_results
from ruac.evaluation.results.names import COLUMNS


def compared(results, ours, theirs, model="ruac"):
    """Statements after ECE was set per domain to given values, the same in both regions."""
    loaded = load_results(results)
    values = {"ruac": ours, "vanilla": theirs}
    tables = []
    for domain in range(len(ours)):
        for (_, m, score, region), row in loaded.values.loc[["camvid"]].iterrows():
            head = {"domain": f"d{domain}", "model": m, "score": score, "region": region}
            tables.append(head | dict(row) | {"ece": values[m][domain]})
    frame = pd.DataFrame(tables).set_index(["domain", "model", "score", "region"])
    found = statements(replace(loaded, values=frame))
    return next(s for s in found if s["key"] == "ece")


NOISE = np.array([0.0, 0.01, -0.01, 0.02, -0.02, 0.01, 0.0, 0.01])


@pytest.mark.parametrize(
    ("gain", "verdict", "slight"),
    [
        (np.full(8, 0.1) + NOISE, "better", False),
        (-np.full(8, 0.1) + NOISE, "worse", False),
        (np.full(8, 0.001) * (1 + NOISE), "better", True),
        (
            np.array([0.3, -0.01, -0.02, -0.01, -0.03, -0.01, -0.01, -0.02]),
            "unclear",
            False,
        ),  # one domain makes the mean
        (np.zeros(8), "unclear", True),
        (np.full(3, 0.1), "better", False),
        (np.array([0.1, 0.1, -0.01]), "unclear", False),
        (np.full(2, 0.1), "unclear", False),
    ],
)
def test_verdicts_claim_no_more_than_the_domains_show(results, gain, verdict, slight):
    theirs = np.full(len(gain), 0.4)
    found = compared(results, theirs - gain, theirs)
    assert found["verdict"] == verdict
    assert found["slight"] == slight
    assert found["sides"][0]["wins"] == (gain > 0).sum()


def test_a_worse_model_is_called_worse_on_the_page(edit):
    def change(table):
        table.loc[table.model == "ruac", "ece"] = 0.4
        table.loc[table.model == "vanilla", "ece"] = 0.2
        return table

    text = " ".join(" ".join(edit(change).texts).split())
    assert "worse calibrated than vanilla" in text
    assert "100 % higher on the whole image" in text
    assert "Calibration: ruac is worse than vanilla." in text


def test_the_best_score_represents_the_baseline(results):
    loaded = load_results(results)
    by_score = [loaded.series(COLUMNS["auroc"], e, "band").mean() for e in loaded.entries if e.model == "vanilla"]
    side = next(s for s in statements(loaded) if s["key"] == "auroc")["sides"][1]
    assert side["theirs"] == f"{max(by_score):.3f}"
